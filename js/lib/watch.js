// Tell a node when something that it shows has changed, anywhere in the graph: links, widgets of others, undo.
// One slow look at a short string a node serves all of these, and holds back a slider that is being dragged.

const EVERY = 500 // ms
const watched = new Set() // of {node, key, changed, last, seen}

export function watch(node, key, changed) {
  const row = { node, key, changed, last: null, seen: null }
  watched.add(row)
  const before = node.onRemoved
  node.onRemoved = function (...given) {
    watched.delete(row)
    return before?.apply(this, given)
  }
}

// Look at all of them anew, such as when a run has ended.
export function again() {
  for (const row of watched) row.last = null
}

function look() {
  if (document.hidden) return
  for (const row of watched) {
    if (!row.node.graph) continue
    const now = row.key()
    if (now !== row.last && now === row.seen) {
      row.last = now
      row.changed()
    }
    row.seen = now
  }
}

setInterval(look, EVERY)
