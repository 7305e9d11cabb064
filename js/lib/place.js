// A place for our elements on a node, below its widgets.

import { element } from './element.js'

const MARGIN = 28 // pixels that the classic canvas takes of it above and below, and some for the eye

// Put `content` there; whatever changes its height calls the function that comes back.
export function place(node, name, content) {
  const box = element('div', { className: 'wan-flf2v' }, content)
  // The first Nodes 2.0 takes the move of a slider for one of its node.
  box.addEventListener('pointermove', event => event.target.closest('input') && event.stopPropagation())
  const height = () => (content.hidden ? 0 : Math.ceil(content.scrollHeight) + MARGIN)
  const options = { serialize: false, hideOnZoom: false, getMinHeight: height, getMaxHeight: height, getValue: () => '' }
  node.addDOMWidget(name, 'wan_flf2v', box, options).serialize = false // no entry among the saved values
  const grow = () => {
    const tall = node.computeSize()[1] // its width would push the node over its neighbour
    if (node.size[1] < tall) node.setSize([node.size[0], tall])
    node.setDirtyCanvas?.(true, true)
  }
  return () => requestAnimationFrame(grow)
}
