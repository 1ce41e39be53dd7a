//! A graph as a picture: layers from left to right, each node to the right of all that it comes from.

use std::collections::BTreeMap;

use serde::Serialize;
use trib_core::Result;

use super::pages::Pages;

/// A box of the picture.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    pub label: String,
    /// From the page that shows the picture.
    pub link: Option<String>,
    /// Its colour: what kind of thing it is.
    pub kind: &'static str,
    /// Shown when a pointer rests on it.
    pub title: String,
    /// The one that the page is about.
    pub focus: bool,
}

/// A laid out graph.
#[derive(Debug, Default, Serialize)]
pub struct Drawing {
    pub width: u32,
    pub height: u32,
    pub boxes: Vec<Placed>,
    pub lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
pub struct Placed {
    pub id: usize,
    #[serde(flatten)]
    pub node: Node,
    pub text: String,
    pub x: u32,
    pub y: u32,
    pub width: u32,
}

#[derive(Debug, Serialize)]
pub struct Line {
    pub from: usize,
    pub to: usize,
    pub path: String,
}

impl Drawing {
    /// An SVG element; nothing for a graph of no more than one box.
    pub fn svg(&self, pages: &Pages) -> Result<String> {
        if self.boxes.len() > 1 { pages.fill("graph.svg", self) } else { Ok(String::new()) }
    }
}

pub const HEIGHT: u32 = 32;
const GAP: f64 = 12.0;
/// Between layers, for lines to bend in.
const BETWEEN: f64 = 56.0;
const CHARS: usize = 28;
const SWEEPS: usize = 8;

/// Something that has a place in a layer: a node, or a line on its way past it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Node(usize),
    Passing,
}

struct Layout {
    items: Vec<Item>,
    layer: Vec<usize>,
    /// By item, the items that lines come from and go to, in the layers beside it.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    y: Vec<f64>,
}

/// Lays out a graph without circles; an edge that would make one is left out. Ends of edges are places in `nodes`.
pub fn draw(nodes: &[Node], edges: &[(usize, usize)]) -> Drawing {
    let layers = layers(nodes.len(), edges);
    let mut layout = Layout {
        items: (0..nodes.len()).map(Item::Node).collect(),
        layer: layers.clone(),
        before: vec![Vec::new(); nodes.len()],
        after: vec![Vec::new(); nodes.len()],
        y: Vec::new(),
    };
    let edges: Vec<(usize, usize)> = edges.iter().copied().filter(|(a, b)| layers[*a] < layers[*b]).collect();
    let ways: Vec<Vec<usize>> = edges.iter().map(|(from, to)| layout.way(*from, *to)).collect();
    let rows = layout.arrange();

    let text: Vec<String> = nodes.iter().map(|n| shortened(&n.label)).collect();
    let width = |node: usize| 22.0 + 7.3 * text[node].chars().count() as f64;
    let mut left = vec![0.0; rows.len()];
    let mut wide = vec![0.0_f64; rows.len()];
    let mut x = 1.0;
    for (at, row) in rows.iter().enumerate() {
        left[at] = x;
        wide[at] = row.iter().filter_map(|i| if let Item::Node(n) = layout.items[*i] { Some(width(n)) } else { None }).fold(0.0, f64::max);
        x += wide[at] + BETWEEN;
    }
    let middle = |item: usize| layout.y[item] + f64::from(HEIGHT) / 2.0;
    let lines = edges.iter().zip(&ways).map(|((from, to), way)| {
        let start = left[layers[*from]] + width(*from);
        let mut path = format!("M{start:.0} {:.0}", middle(*from));
        let mut at = (start, middle(*from));
        for item in way {
            let next = (left[layout.layer[*item]], middle(*item));
            let bend = f64::midpoint(at.0, next.0);
            path.push_str(&format!(" C{bend:.0} {:.0} {bend:.0} {:.0} {:.0} {:.0}", at.1, next.1, next.0, next.1));
            at = next;
            if layout.items[*item] == Item::Passing {
                at.0 += wide[layout.layer[*item]];
                path.push_str(&format!(" H{:.0}", at.0));
            }
        }
        Line { from: *from, to: *to, path }
    });
    let lines = lines.collect();
    let boxes = nodes.iter().zip(&text).enumerate().map(|(id, (node, text))| Placed {
        id,
        node: node.clone(),
        text: text.clone(),
        x: left[layers[id]] as u32,
        y: layout.y[id] as u32,
        width: width(id) as u32,
    });
    let boxes: Vec<Placed> = boxes.collect();
    let height = boxes.iter().map(|b| b.y + HEIGHT + 2).max().unwrap_or_default();
    let width = boxes.iter().map(|b| b.x + b.width + 2).max().unwrap_or_default();
    Drawing { width, height, boxes, lines }
}

/// The longest way to each node from one that nothing leads to.
fn layers(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layer = vec![0; nodes];
    // A way is never longer than there are nodes; in a circle this ends all the same.
    for _ in 0..nodes {
        let mut moved = false;
        for (from, to) in edges {
            if layer[*to] <= layer[*from] && layer[*from] + 1 < nodes {
                layer[*to] = layer[*from] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    layer
}

impl Layout {
    /// The items on the way of an edge, its end included: one in each layer.
    fn way(&mut self, from: usize, to: usize) -> Vec<usize> {
        let mut way = Vec::new();
        let mut last = from;
        for layer in self.layer[from] + 1..=self.layer[to] {
            let item = if layer == self.layer[to] { to } else { self.passing(layer) };
            self.after[last].push(item);
            self.before[item].push(last);
            way.push(item);
            last = item;
        }
        way
    }

    fn passing(&mut self, layer: usize) -> usize {
        self.items.push(Item::Passing);
        self.layer.push(layer);
        self.before.push(Vec::new());
        self.after.push(Vec::new());
        self.items.len() - 1
    }

    /// The order within each layer and the heights: neighbours near each other, so that few lines cross.
    fn arrange(&mut self) -> Vec<Vec<usize>> {
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); self.layer.iter().max().map_or(0, |l| l + 1)];
        for (item, layer) in self.layer.iter().enumerate() {
            rows[*layer].push(item);
        }
        self.y = vec![0.0; self.items.len()];
        for row in &rows {
            self.stack(row, |_, y| y);
        }
        for sweep in 0..SWEEPS {
            let forward = sweep % 2 == 0;
            let order: Vec<usize> = if forward { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
            for at in order {
                let beside = if forward { &self.before } else { &self.after };
                let wanted: BTreeMap<usize, f64> = rows[at].iter().map(|i| (*i, self.mean(&beside[*i]).unwrap_or(self.y[*i]))).collect();
                rows[at].sort_by(|a, b| wanted[a].total_cmp(&wanted[b]));
                let row = rows[at].clone();
                self.stack(&row, |item, _| wanted[&item]);
            }
        }
        let top = self.y.iter().copied().fold(f64::INFINITY, f64::min);
        for y in &mut self.y {
            *y += 1.0 - top;
        }
        rows
    }

    fn mean(&self, items: &[usize]) -> Option<f64> {
        (!items.is_empty()).then(|| items.iter().map(|i| self.y[*i]).sum::<f64>() / items.len() as f64)
    }

    /// Puts a layer's items below each other, each as near to where it is wanted as the ones before it let it, and all of them together where
    /// they are wanted on average.
    fn stack(&mut self, row: &[usize], wanted: impl Fn(usize, f64) -> f64) {
        let mut next = f64::NEG_INFINITY;
        let mut off = 0.0;
        for item in row {
            let want = wanted(*item, if next.is_finite() { next } else { 0.0 });
            self.y[*item] = want.max(next);
            off += self.y[*item] - want;
            let tall = if self.items[*item] == Item::Passing { GAP } else { f64::from(HEIGHT) + GAP };
            next = self.y[*item] + tall;
        }
        for item in row {
            self.y[*item] -= off / row.len() as f64;
        }
    }
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= CHARS {
        return label.to_owned();
    }
    let kept: String = label.chars().take(CHARS - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(label: &str) -> Node {
        Node { label: label.to_owned(), link: None, kind: "model", title: String::new(), focus: false }
    }

    #[test]
    fn every_node_stands_right_of_what_it_comes_from_and_none_on_another() {
        let nodes: Vec<Node> = (0..12).map(|i| node(&format!("table number {i}"))).collect();
        let edges = [(0, 4), (1, 4), (2, 5), (4, 6), (5, 6), (0, 6), (6, 7), (6, 8), (3, 8), (8, 9), (1, 10), (10, 11), (0, 11)];
        let drawing = draw(&nodes, &edges);
        for (from, to) in edges {
            let (a, b) = (&drawing.boxes[from], &drawing.boxes[to]);
            assert!(a.x + a.width < b.x, "{from} {to}");
        }
        for a in &drawing.boxes {
            assert!(a.x + a.width <= drawing.width && a.y + HEIGHT <= drawing.height);
            for b in drawing.boxes.iter().filter(|b| b.id != a.id && b.x == a.x) {
                assert!(a.y.abs_diff(b.y) >= HEIGHT, "{} and {} overlap", a.id, b.id);
            }
        }
        assert_eq!(drawing.lines.len(), edges.len());
    }

    #[test]
    fn a_circle_and_nothing_end() {
        assert_eq!(draw(&[], &[]).width, 0);
        let drawing = draw(&[node("a"), node("b"), node("c")], &[(0, 1), (1, 2), (2, 1)]);
        assert_eq!(drawing.boxes.len(), 3);
    }

    #[test]
    fn names_are_text() {
        let svg = draw(&[node("<script>"), node("b")], &[(0, 1)]).svg(&Pages::new().unwrap()).unwrap();
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script>"), "{svg}");
    }
}
