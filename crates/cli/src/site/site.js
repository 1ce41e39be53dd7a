// `SITE` stands before this: [name, page, columns] of each table.
"use strict";

const root = document.body.dataset.root;

// Light or dark: what the reader chose, otherwise what the system says.
const kept = {
  get theme() { try { return localStorage.getItem("trib-theme"); } catch { return null; } },
  set theme(value) { try { localStorage.setItem("trib-theme", value); } catch { /* a page from a file may not keep anything */ } },
};
if (kept.theme) document.documentElement.dataset.theme = kept.theme;
document.querySelector(".theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  kept.theme = document.documentElement.dataset.theme = dark ? "light" : "dark";
});

// Times as how long ago they are; the time itself shows when a pointer rests on it.
for (const time of document.querySelectorAll("time")) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time.dateTime)) / 1000);
  const [length, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([length]) => seconds >= length) ?? [1, "second"];
  const n = Math.floor(seconds / length);
  time.title = time.dateTime;
  time.textContent = `${n} ${unit}${n === 1 ? "" : "s"} ago`;
}

// Finding tables and columns.
const field = document.querySelector(".search input");
const list = document.querySelector(".search ul");
const MOST = 14;
field.addEventListener("input", () => {
  const wanted = field.value.trim().toLowerCase();
  const found = [];
  if (wanted) {
    for (const [name, page] of SITE) if (name.toLowerCase().includes(wanted)) found.push([name, page]);
    for (const [name, page, columns] of SITE) {
      for (const column of columns) {
        if (column.toLowerCase().includes(wanted)) found.push([`${name}.${column}`, `${page}#${encodeURIComponent(column)}`]);
      }
    }
  }
  list.replaceChildren(...found.slice(0, MOST).map(([text, page], i) => {
    const item = document.createElement("li");
    const link = item.appendChild(document.createElement("a"));
    link.textContent = text;
    link.href = root + page;
    if (i === 0) link.className = "on";
    return item;
  }));
  list.hidden = found.length === 0;
});
field.addEventListener("keydown", (event) => {
  const links = [...list.querySelectorAll("a")];
  const at = links.findIndex((link) => link.className === "on");
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && links.length) {
    event.preventDefault();
    links[at].className = "";
    links[(at + step + links.length) % links.length].className = "on";
  } else if (event.key === "Enter" && links[at]) {
    location.href = links[at].href;
  } else if (event.key === "Escape") {
    list.hidden = true;
  }
});
document.addEventListener("click", (event) => { if (!event.target.closest(".search")) list.hidden = true; });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== field) { event.preventDefault(); field.focus(); }
});

// A table of the picture, with all that it comes from and that comes from it.
for (const graph of document.querySelectorAll(".graph")) {
  const lines = [...graph.querySelectorAll(".line")];
  const reach = (id, from, to) => {
    const seen = new Set([id]);
    for (const one of seen) for (const line of lines) if (line.dataset[from] === one) seen.add(line.dataset[to]);
    return seen;
  };
  for (const box of graph.querySelectorAll(".box")) {
    const show = () => {
      const below = reach(box.dataset.id, "from", "to");
      const above = reach(box.dataset.id, "to", "from");
      graph.classList.add("lit");
      for (const other of graph.querySelectorAll(".box")) {
        other.classList.toggle("on", below.has(other.dataset.id) || above.has(other.dataset.id));
      }
      for (const line of lines) {
        const within = (side) => side.has(line.dataset.from) && side.has(line.dataset.to);
        line.classList.toggle("on", within(below) || within(above));
      }
    };
    box.addEventListener("pointerenter", show);
    box.addEventListener("focusin", show);
    box.addEventListener("pointerleave", () => graph.classList.remove("lit"));
    box.addEventListener("focusout", () => graph.classList.remove("lit"));
  }
}

// A link to a run opens it.
const opened = () => {
  const run = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (run?.tagName === "DETAILS") run.open = true;
};
addEventListener("hashchange", opened);
opened();

// SQL in colours.
const WORDS = new Set(("select from where group by order having join left right full outer inner cross on using as and or not in is null case when then else end " +
  "with union all distinct over partition rows between preceding following current row limit offset exists cast interval date timestamp desc asc filter " +
  "lateral recursive values intersect except true false like").split(" "));
for (const code of document.querySelectorAll("code.sql")) {
  const parts = code.textContent.match(/--[^\n]*|\/\*[^]*?\*\/|'(?:[^']|'')*'|"[^"]*"|\d+(?:\.\d+)?|\w+|[^]/g) ?? [];
  code.replaceChildren(...parts.map((part) => {
    const kind = /^(--|\/\*)/.test(part) ? "c" : part[0] === "'" ? "s" : /^\d/.test(part) ? "d" : WORDS.has(part.toLowerCase()) ? "w" : "";
    if (!kind) return part;
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = part;
    return span;
  }));
}
