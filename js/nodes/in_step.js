// Two players that show the same moment. The one that lasts longer leads; the other waits at its end.

const APART = 0.5 // frames that they may be apart while they play

export class InStep {
  // `clips`: {player, frames, fps} of both. `changed` is called when the moment has changed, or playing has.
  constructor(clips, changed) {
    const lasting = clip => clip.frames / clip.fps
    const [lead, other] = [...clips].sort((a, b) => lasting(b) - lasting(a))
    Object.assign(this, { lead, other, changed, frame: 0, playing: false })
    lead.player.onended = () => this.playing && this.restart()
  }

  get count() {
    return this.lead.frames
  }

  get seconds() {
    return this.frame / this.lead.fps
  }

  show(frame) {
    this.frame = Math.min(Math.max(0, frame), this.count - 1)
    for (const clip of [this.lead, this.other]) clip.player.currentTime = this.middle(clip)
    this.changed()
  }

  // The time in the middle of what a clip shows then: on the edge between two frames a player may show either.
  middle(clip) {
    const frame = Math.min(Math.floor(this.seconds * clip.fps + 1e-6), clip.frames - 1)
    return (frame + 0.5) / clip.fps
  }

  toggle() {
    if (this.playing) this.pause()
    else this.play()
  }

  async play() {
    if (this.frame >= this.count - 1) this.show(0)
    this.playing = true
    this.changed()
    try {
      await Promise.all([this.lead, this.other].map(clip => clip.player.play()))
    } catch {
      return this.pause() // paused or taken away before it began
    }
    this.followNext()
  }

  pause() {
    this.playing = false
    cancelAnimationFrame(this.next)
    for (const clip of [this.lead, this.other]) clip.player.pause()
    this.show(this.frame)
  }

  restart() {
    this.show(0)
    this.play()
  }

  follow() {
    if (!this.playing) return
    const { lead, other } = this
    if (!lead.player.isConnected) return this.pause()
    const now = lead.player.currentTime
    this.frame = Math.min(Math.floor(now * lead.fps + 1e-6), this.count - 1)
    const wanted = Math.min(now, (other.frames - 0.5) / other.fps)
    if (Math.abs(other.player.currentTime - wanted) > APART / other.fps) other.player.currentTime = wanted
    this.changed()
    this.followNext()
  }

  // One look a frame: a clip that begins anew is played again while the look before still stands out.
  followNext() {
    cancelAnimationFrame(this.next)
    this.next = requestAnimationFrame(() => this.follow())
  }
}
