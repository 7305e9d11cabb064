// What our nodes show beside their widgets. Without this they work as well, and say as text what they have to say.

import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'
import { attachCompare } from './compare.js'
import { attachEnds } from './ends.js'
import { attachEstimate } from './estimate.js'
import { offerExamples } from './examples.js'
import { keepLines } from './lines.js'
import { addStyle } from './style.js'
import { attachTimeline } from './timeline.js'
import { again } from '../lib/watch.js'

const folded = node => attachEnds(node, true)
// In the order in which they stand on the node.
const SHOWN = {
  WanFLF2VLocal: [attachEstimate, attachTimeline, folded],
  WanFLF2VChain: [attachEstimate],
  WanFLF2VConditioning: [attachEstimate, attachTimeline],
  WanFLF2VSampler: [attachEstimate],
  WanFLF2VKeyframe: [attachTimeline],
  WanFLF2VEnds: [node => attachEnds(node, false)],
  WanFLF2VGMI: [folded],
  WanFLF2VWaveSpeed: [folded],
  WanFLF2VCompare: [attachCompare],
}

app.registerExtension({
  name: 'WanFLF2V.nodes',
  setup() {
    addStyle()
    keepLines()
    for (const ended of ['execution_success', 'execution_error']) api.addEventListener(ended, again)
  },
  nodeCreated(node) {
    for (const attach of SHOWN[node.comfyClass ?? node.type] ?? []) attach(node)
  },
  loadedGraphNode: offerExamples,
})
