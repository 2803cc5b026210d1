// Pages that are opened from a folder may start no worker, and the theme's search is one. Here a hidden frame stands in:
// it runs the worker's script, and hands messages over as a worker would. Nothing is fetched but files beside the page.
// With a server the browser's own workers are kept.
// Either way a query for an option by its name asks for what docs/site/hooks.py wrote of options into the index:
// `--patch-qc=VALUE` becomes the word option_patch_qc, begun or whole (whole counts more), and the words of its name in the
// text, which are marked in what is found. As it stands, its dashes would forbid a word, or part words of which any does.
const asOption = (_, space, name) => {
  const words = name.toLowerCase().split(/-+/).filter(Boolean)
  const option = `option_${words.join("_")}`
  return `${space}+${option}* ${option}^10 ${words.map(word => `text:${word}^1`).join(" ")}`
}
const withOptions = message => typeof message?.data !== "string" ? message : {
  ...message,
  data: message.data.replace(/(^|\s)["'`(]*--+(\w[\w-]*)\S*/g, asOption).replace(/(^|\s)--+(?=\S)/g, "$1"),
}
const post = Worker.prototype.postMessage
Worker.prototype.postMessage = function (message, ...others) {
  return post.call(this, withOptions(message), ...others)
}
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame) // there may be no body yet
      const inside = frame.contentWindow
      const load = url => new Promise((resolve, reject) => {
        const script = inside.document.createElement("script")
        script.onload = resolve
        script.onerror = () => reject(new Error(`${url} cannot be loaded`))
        script.src = url
        inside.document.head.append(script)
      })
      const report = error => this.dispatchEvent(new ErrorEvent("error", { message: error.message, error }))
      // one after another, as in a worker; the search waits for the promise
      inside.importScripts = (...urls) => urls.reduce(
        (before, url) => before.then(() => load(new URL(url, address))), Promise.resolve())
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.postMessage = data => { waiting.push(data) }
      const give = data => inside.dispatchEvent(new inside.MessageEvent("message", { data: withOptions(data) }))
      load(new URL(address, document.baseURI)).then(() => {
        this.postMessage = data => { setTimeout(() => give(data)) }
        waiting.forEach(this.postMessage)
      }, report)
      this.terminate = () => frame.remove()
    }
  }
}
