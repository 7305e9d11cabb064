// How what we put on nodes looks: the page's own colours, both themes.

const RULES = `
.wan-flf2v { box-sizing: border-box; width: 100%; font: 12px/1.45 system-ui, sans-serif; color: var(--input-text, #ddd); overflow: hidden; }
.wan-flf2v * { box-sizing: border-box; }
.wan-flf2v [hidden] { display: none !important; }
.wan-flf2v button { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 4px; padding: 2px 8px; cursor: pointer; min-height: 24px; }
.wan-flf2v button:hover { filter: brightness(1.25); }
.wan-flf2v :is(button, input, summary, video):focus-visible { outline: 2px solid #6ab0ff; outline-offset: -2px; }
.wan-flf2v input[type=range] { width: 100%; margin: 0; height: 20px; accent-color: #6ab0ff; }
.wan-flf2v-row { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
.wan-flf2v-lines { margin-top: 4px; }
.wan-flf2v-lines > div { min-height: 1.45em; overflow-wrap: anywhere; }
.wan-flf2v-warn { color: #f0b060; }
.wan-flf2v-pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 8px; }
.wan-flf2v figure { margin: 0; min-width: 0; }
.wan-flf2v figcaption { overflow-wrap: anywhere; }
.wan-flf2v-wipe { position: relative; background: #000; border-radius: 4px; overflow: hidden; }
.wan-flf2v-wipe img { display: block; width: 100%; image-rendering: auto; }
.wan-flf2v-wipe img + img { position: absolute; inset: 0; height: 100%; }
.wan-flf2v-wipe i { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: #fff; mix-blend-mode: difference; }
.wan-flf2v-sides { display: flex; justify-content: space-between; opacity: .75; }
.wan-flf2v-clips { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }
.wan-flf2v-clips video { display: block; width: 100%; background: #000; border-radius: 4px; }
.wan-flf2v-controls { display: flex; gap: 4px; align-items: center; margin: 6px 0 2px; }
.wan-flf2v-controls input { flex: 1; min-width: 60px; }
.wan-flf2v-track { position: relative; padding-bottom: 8px; }
.wan-flf2v-track b { position: absolute; bottom: 0; width: 2px; height: 7px; margin-left: -1px; background: currentColor; opacity: .6; }
.wan-flf2v summary { cursor: pointer; }
`

export function addStyle() {
  const sheet = document.createElement('style')
  sheet.textContent = RULES
  document.head.append(sheet)
}
