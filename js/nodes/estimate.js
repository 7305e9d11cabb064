// What a run will take, in a few lines on the node: seconds of video, tokens, memory, time.

import { clipOf, hasSize, modelOf } from './clip.js'
import { element } from '../lib/element.js'
import { get } from '../lib/server.js'
import { place } from '../lib/place.js'
import { value, widget } from './graph.js'
import { sizes } from './sizes.js'
import { say } from './say.js'
import { watch } from '../lib/watch.js'

const GB = 1e9

export function attachEstimate(node) {
  const lines = element('div', { className: 'wan-flf2v-lines', role: 'status', ariaLabel: say('estimate') })
  const content = element('div', {}, ...(hasSize(node) ? [sizes(node), lines] : [lines]))
  const grow = place(node, 'wan_flf2v_estimate', content)
  let newest = 0
  const show = async () => {
    const number = ++newest
    const clip = clipOf(node)
    const told = clip && (await ask(node, clip))
    const known = [value(node, 'steps'), value(node, 'guidance')].every(each => each !== undefined)
    if (number !== newest) return // the widgets have changed meanwhile
    lines.replaceChildren(...linesOf(clip, told, widget(node, 'steps') ? (known ? 'known' : 'linked') : 'none').map(line))
    grow()
  }
  watch(node, () => JSON.stringify([clipOf(node), modelOf(node), value(node, 'steps'), value(node, 'guidance')]), show)
}

const line = ([text, warn]) => element('div', { textContent: text, className: warn ? 'wan-flf2v-warn' : '' })

async function ask(node, clip) {
  if ([clip.width, clip.height, clip.length].some(each => each === undefined)) return null
  const { each, ...sized } = clip
  const asked = { ...sized, ...modelOf(node), steps: value(node, 'steps'), guidance: value(node, 'guidance') }
  const known = Object.entries(asked).filter(([, each]) => each !== undefined)
  return get('/estimate', known).catch(() => null)
}

// [text, whether it warns] of each line. `sampling`: whether its steps and guidance are 'known', 'linked', or the node
// has 'none'.
export function linesOf(clip, told, sampling) {
  if (!clip || clip.length === undefined) return [[say('linked')]]
  const seconds = (clip.length / clip.fps).toFixed(2)
  const each = clip.each ? say('each') : ''
  const lines = [[each + say('lasts', { seconds, fps: clip.fps, length: clip.length })]]
  if (told?.problem) return [...lines, [told.problem, true]]
  if (told?.tokens) lines[0][0] += ` · ${say('tokens', { count: told.tokens.toLocaleString() })}`
  if (told?.need) lines.push(memory(told))
  if (!told?.device || sampling === 'none') return lines
  if (sampling === 'linked') return [...lines, [say('timeLinked')]]
  lines.push([told.seconds === undefined ? say('unknown') : each + time(told)])
  return lines
}

function memory(told) {
  if (told.each && !told.total) return [say('memoryThere', { need: gigabytes(told.need) })] // a cluster's GPUs
  const [need, least, total] = [told.need, told.least, told.total].map(gigabytes)
  const where = { need, least, total, device: told.device }
  if (!told.gpu) return [say('memoryHere', where), told.need > told.total]
  if (told.each) return told.need > told.total ? [say('memoryOfEachNever', where), true] : [say('memoryOfEach', where)]
  if (told.need <= told.total) return [say('memory', where)]
  return told.least <= told.total ? [say('memoryOffloaded', where), true] : [say('memoryNever', where), true]
}

const gigabytes = bytes => (bytes / GB).toFixed(bytes < 10 * GB ? 1 : 0)

function time({ seconds, measured }) {
  return say(measured ? 'time' : 'timeAbout', { time: duration(seconds) })
}

export function duration(seconds) {
  const whole = Math.round(seconds)
  if (whole < 60) return say('seconds', { s: seconds < 10 ? seconds.toFixed(1) : whole })
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)]
  return hours ? say('hours', { h: hours, min: minutes }) : say('minutes', { min: minutes, s: whole % 60 })
}
