// Where images stand in a clip: a slider for each keyframe node, over marks for the others.

import { clipOf } from './clip.js'
import { element } from '../lib/element.js'
import { place } from '../lib/place.js'
import { readers, set, source, undoable, value } from './graph.js'
import { say } from './say.js'
import { watch } from '../lib/watch.js'

const KEYFRAME = 'WanFLF2VKeyframe'
const STEP = 4 // frames; an image stands at a multiple of it
const USUAL = { length: 81, fps: 16 } // while the node is connected to no clip
const FAR = 20

export function attachTimeline(node) {
  const content = element('div', { role: 'group', ariaLabel: say('timeline'), hidden: true })
  const grow = place(node, 'wan_flf2v_timeline', content)
  const state = () => {
    const clip = clipBelow(node)
    return { ...clip, rows: shownOn(node).map(each => [each.id, value(each, 'frame'), each.title]), all: marks(node) }
  }
  watch(node, () => JSON.stringify(state()), () => {
    if (content.contains(document.activeElement) && content.dataset.of === rowsOf(state())) return // being moved
    const now = state()
    content.dataset.of = rowsOf(now)
    content.hidden = !now.rows.length
    content.replaceChildren(...shownOn(node).map(each => track(each, node, now)))
    grow()
  })
}

const rowsOf = ({ rows, length }) => `${rows.map(([id]) => id)} ${length}`

// The keyframe nodes in a row that ends at `node`'s input, or at the node itself.
function chain(node) {
  const found = []
  let each = node.type === KEYFRAME ? node : source(node, 'keyframes')
  for (; each?.type === KEYFRAME && found.length < FAR; each = source(each, 'keyframes')) found.unshift(each)
  return found
}

const shownOn = node => (node.type === KEYFRAME ? [node] : chain(node))

function clipBelow(node) {
  let each = node
  for (let step = 0; each?.type === KEYFRAME && step < FAR; step++) each = readers(each)[0]
  const clip = each && clipOf(each)
  return clip?.length === undefined ? USUAL : { length: clip.length, fps: clip.fps }
}

function marks(node) {
  let last = node
  for (let step = 0; last.type === KEYFRAME && step < FAR; step++) {
    const next = readers(last)[0]
    if (next?.type !== KEYFRAME) break
    last = next
  }
  return chain(last).map(each => value(each, 'frame')).filter(frame => frame !== undefined)
}

// Frames count from the end below 0.
const placeOf = (frame, length) => (frame < 0 ? frame + length : frame)

function track(keyframe, node, { length, fps, all }) {
  const at = placeOf(value(keyframe, 'frame') ?? 0, length)
  const name = keyframe === node ? say('thisImage') : keyframe.title
  const words = frame => say('at', { name, frame, length, seconds: (frame / fps).toFixed(2) })
  const label = element('div', { textContent: words(at) })
  const slider = element('input', { type: 'range', min: 0, max: length - 1, step: STEP, value: at, ariaLabel: words(at) })
  slider.disabled = value(keyframe, 'frame') === undefined
  slider.oninput = () => {
    set(keyframe, 'frame', Number(slider.value))
    label.textContent = slider.ariaLabel = words(Number(slider.value))
  }
  slider.onchange = () => undoable(() => {}) // moved: one step, however many frames it went over
  const places = [0, length - 1, ...all.map(frame => placeOf(frame, length))]
  const ticks = places.map(frame => {
    const mark = element('b', { ariaHidden: 'true' })
    mark.style.left = `calc(8px + (100% - 16px) * ${frame / Math.max(1, length - 1)})` // the thumb's half at each end
    return mark
  })
  return element('div', {}, label, element('div', { className: 'wan-flf2v-track' }, slider, ...ticks))
}
