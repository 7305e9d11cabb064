// Two clips side by side, with one set of controls.

import { button, element } from '../lib/element.js'
import { place } from '../lib/place.js'
import { InStep } from './in_step.js'
import { address, onResult } from './results.js'
import { say } from './say.js'

const KEY = 'wan_flf2v_compare'
const WIDE = 520

export function attachCompare(node) {
  const content = element('div', { hidden: true })
  const grow = place(node, KEY, content)
  onResult(node, KEY, ([{ a, b, difference }]) => {
    content.hidden = false
    content.replaceChildren(...players(a, b, grow), element('div', { textContent: difference }))
    if (node.size[0] < WIDE) node.setSize([WIDE, node.size[1]])
    grow()
  })
}

function players(a, b, grow) {
  const clips = [[a, say('sideA')], [b, say('sideB')]].map(([clip, name]) => ({ ...clip, player: player(clip, name, grow) }))
  const play = button(say('play'), say('play'), () => together.toggle())
  const seek = element('input', { type: 'range', min: 0, value: 0, step: 1, ariaLabel: say('seek') })
  const position = element('div', { role: 'status', ariaLive: 'off' })
  const together = new InStep(clips, () => {
    play.textContent = play.ariaLabel = play.title = say(together.playing ? 'pause' : 'play')
    seek.value = together.frame
    position.textContent = say('position', { frame: together.frame, count: together.count, seconds: together.seconds.toFixed(2) })
    seek.setAttribute('aria-valuetext', position.textContent)
  })
  const stop = frame => {
    if (together.playing) together.pause()
    together.show(frame)
  }
  seek.max = together.count - 1
  seek.oninput = () => stop(Number(seek.value))
  const back = button('◂', say('back'), () => stop(together.frame - 1))
  const forth = button('▸', say('forth'), () => stop(together.frame + 1))
  const controls = element('div', { className: 'wan-flf2v-controls', role: 'group' }, back, play, forth, seek)
  together.changed()
  const both = element('div', { className: 'wan-flf2v-clips' }, ...clips.map(clip => clip.player.parentElement))
  return [both, controls, position]
}

function player(clip, name, grow) {
  const video = element('video', { muted: true, playsInline: true, preload: 'auto', ariaLabel: name, src: address(clip) })
  video.onloadedmetadata = grow
  element('figure', {}, video, element('figcaption', { textContent: name }))
  return video
}
