// Two images of one size over each other, and a slider for where the one ends and the other begins.

import { element } from '../lib/element.js'
import { say } from './say.js'

export function wipe(image, shown, name) {
  const below = element('img', { src: shown, alt: `${name}: ${say('shown')}`, draggable: false })
  const above = element('img', { src: image, alt: `${name}: ${say('image')}`, draggable: false })
  const line = element('i')
  const images = element('div', { className: 'wan-flf2v-wipe' }, below, above, line)
  const slider = element('input', { type: 'range', min: 0, max: 100, value: 50, ariaLabel: say('wipe', { name }) })
  const move = () => {
    above.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`
    line.style.left = `${slider.value}%`
  }
  slider.oninput = move
  move()
  const sides = [element('span', { textContent: say('image') }), element('span', { textContent: say('shown') })]
  return { box: element('div', {}, images, element('div', { className: 'wan-flf2v-sides' }, ...sides), slider), images: [below, above] }
}
