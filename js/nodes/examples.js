// A button on image loaders whose image is one of the pack's own and not there: it brings them.

import { app } from '../../../scripts/app.js'
import { graphs } from '../lib/graphs.js'
import { post } from '../lib/server.js'
import { set, widget } from './graph.js'
import { say } from './say.js'

const LOADER = 'LoadImage'
const NAMES = ['first.png', 'last.png', 'nano_first.png', 'nano_middle.png', 'nano_last.png']
const BUTTON = 'wan_flf2v_examples'

export function offerExamples(node) {
  if (node.type !== LOADER || !lacks(node) || widget(node, BUTTON)) return
  const added = node.addWidget('button', BUTTON, null, bring, { serialize: false })
  added.serialize = false // no entry among the saved values
  added.label = say('examples')
}

function lacks(node) {
  const found = widget(node, 'image')
  const offered = found?.options?.values
  return NAMES.includes(found?.value) && Array.isArray(offered) && !offered.includes(found.value)
}

async function bring() {
  let names
  try {
    names = await post('/examples')
  } catch (error) {
    app.extensionManager?.toast?.add({ severity: 'error', summary: say('examplesFailed'), detail: error.message, life: 8000 })
    return
  }
  const waiting = graphs().flatMap(graph => graph._nodes).filter(node => widget(node, BUTTON))
  await app.refreshComboInNodes()
  for (const node of waiting) {
    const image = widget(node, 'image')
    const name = names[image.value] ?? image.value
    if (image.value === name) image.callback?.(name, undefined, node) // its preview
    else set(node, 'image', name)
    const at = node.widgets.findIndex(each => each.name === BUTTON)
    if (node.removeWidget) node.removeWidget(node.widgets[at])
    else node.widgets.splice(at, 1)
    node.setDirtyCanvas?.(true, true)
  }
}
