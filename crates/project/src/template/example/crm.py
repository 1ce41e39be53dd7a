"""A stand-in for a CRM: contacts in memory, on this machine only, until it is stopped.

    python3 crm.py [PORT]          # 8075; 0 for one that is free
    DELIVER=true trib run crm      # in another terminal
    curl http://127.0.0.1:8075     # what it has
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

contacts = {}
archived = set()


def upsert(contact):
    """One contact; gives the result of one."""
    key = contact.get("customer_id")
    if not contact.get("name"):
        return {"error": "a contact needs a name"}
    contacts[key] = contact
    archived.discard(key)
    return {"id": f"contact-{key}"}


def page():
    rows = sorted((c for key, c in contacts.items() if key not in archived), key=lambda c: -float(c["spent"]))
    lines = [f"{c['customer_id']:>11}  {c['segment']:<7}  {float(c['spent']):>8.2f}  {c['open_orders']:>11}  {c['name']}" for c in rows]
    return "\n".join(["customer_id  segment     spent  open orders  name", *lines, f"{len(rows)} contacts, {len(archived)} archived", ""])


class Crm(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(json.dumps({"ok": True}) if self.path == "/ping" else page())

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["contacts"]
        new = sum(contact.get("customer_id") not in contacts for contact in sent)
        results = [upsert(contact) for contact in sent]
        print(f"{len(sent)} contacts came, {new} of them new", flush=True)
        self.answer(json.dumps({"results": results}))

    def do_DELETE(self):
        key = int(self.path.rsplit("/", 1)[-1])
        archived.add(key)
        print(f"contact {key} was archived", flush=True)
        self.answer("{}")

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8075), Crm)
    print(f"a CRM at http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
