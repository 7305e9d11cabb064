// A place for our elements on a node, below its widgets.

import { element } from './element.js'

const MARGIN = 28 // pixels that the classic canvas takes of it above and below, and some for the eye
const given = new WeakMap() // node to the height that it had and the one that it was given here

// Put `content` there; whatever changes its height calls the function that comes back.
export function place(node, name, content) {
  const box = element('div', { className: 'wan-flf2v' }, content)
  // The first Nodes 2.0 takes the move of a slider for one of its node.
  box.addEventListener('pointermove', event => event.target.closest('input') && event.stopPropagation())
  const height = () => (content.hidden ? 0 : Math.ceil(content.scrollHeight) + MARGIN)
  const options = { serialize: false, hideOnZoom: false, getMinHeight: height, getMaxHeight: height, getValue: () => '' }
  node.addDOMWidget(name, 'wan_flf2v', box, options).serialize = false // no entry among the saved values
  const fit = () => {
    const [before, now] = given.get(node) ?? []
    const own = node.size[1] === now ? before : node.size[1] // somebody may have drawn it larger since
    const tall = Math.max(own, node.computeSize()[1]) // that width would push the node over its neighbour
    given.set(node, [own, tall])
    if (node.size[1] !== tall) node.setSize([node.size[0], tall])
    node.setDirtyCanvas?.(true, true)
  }
  return () => requestAnimationFrame(fit)
}
