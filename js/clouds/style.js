// How the pages of the clouds look: the page's own colours, both themes.

const RULES = `
.wan-clouds { box-sizing: border-box; font: 13px/1.45 system-ui, sans-serif; color: var(--input-text, #ddd); }
.wan-clouds * { box-sizing: border-box; }
.wan-clouds button { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); cursor: pointer;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; padding: 2px 8px; min-height: 26px; }
.wan-clouds button:hover:not(:disabled, [aria-disabled=true]) { filter: brightness(1.25); }
.wan-clouds button:is(:disabled, [aria-disabled=true]) { opacity: .45; cursor: default; }
.wan-clouds :is(button, input, video, a):focus-visible { outline: 2px solid #6ab0ff; outline-offset: 1px; }
.wan-clouds input { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); min-width: 0; flex: 1;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; padding: 4px 8px; }
.wan-clouds p { margin: 6px 0; }
:is(.wan-clouds .row, .wan-clouds.row) { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
.wan-clouds .small { opacity: .8; font-size: 12px; }
.wan-clouds .warn { color: #e69f3c; }
.wan-clouds.panel { height: 100%; overflow-y: auto; padding: 10px; }
.wan-clouds.panel h2 { font-size: 15px; margin: 0; flex: 1; }
.wan-clouds ul { list-style: none; margin: 8px 0; padding: 0; }
.wan-clouds li { display: grid; grid-template-columns: 88px minmax(0, 1fr); gap: 8px; padding: 8px 0;
  border-top: 1px solid var(--border-color, #4e4e4e); }
.wan-clouds li img, .wan-clouds li .blank { width: 88px; height: 56px; object-fit: cover; border-radius: 4px; background: #0004; }
.wan-clouds li .prompt { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden;
  overflow-wrap: anywhere; }
.wan-clouds li .row { margin-top: 4px; }
.wan-clouds li video { grid-column: 1 / -1; width: 100%; background: #000; border-radius: 4px; }
.wan-clouds .mark { border-radius: 4px; padding: 0 6px; background: #8884; overflow-wrap: anywhere; }
.wan-clouds .mark.open { background: #b36b00; color: #fff; }
.wan-clouds .mark.here { background: #22703c; color: #fff; }
.wan-clouds.line { width: 100%; font-size: 12px; overflow: hidden; }
.wan-clouds .key { max-width: 460px; min-width: 260px; margin: 4px 0 10px; }
dialog.wan-clouds { background: var(--comfy-menu-bg, #353535); border: 1px solid var(--border-color, #4e4e4e);
  border-radius: 8px; padding: 16px 20px; max-width: 520px; }
dialog.wan-clouds::backdrop { background: #0008; }
dialog.wan-clouds h2 { font-size: 16px; margin: 0 0 8px; }
`

export function addStyle() {
  if (document.getElementById('wan-clouds')) return
  const sheet = document.createElement('style')
  sheet.id = 'wan-clouds'
  sheet.textContent = RULES
  document.head.append(sheet)
}
