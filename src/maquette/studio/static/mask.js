// A brush over a picture. The canvas has the picture's own pixels, and pointers are mapped by what is shown of it, so that
// strokes lie under the pointer at every zoom and device scale.
class Brush {
  constructor(stage) {
    this.stage = stage;
    this.size = 40; // across, in pixels of a picture of 512
    Object.assign(this, { erasing: false, strokes: [] }); // strokes: the mask before each
    this.canvas = Object.assign(document.createElement("canvas"), { tabIndex: -1 });
    this.canvas.dataset.testid = "mask";
    this.canvas.setAttribute("aria-hidden", "true");
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.canvas.addEventListener("pointerdown", event => this.begin(event));
    this.canvas.addEventListener("pointermove", event => { if (this.last) for (const each of event.getCoalescedEvents?.() ?? [event]) this.draw(each); });
    for (const type of ["pointerup", "pointercancel"]) this.canvas.addEventListener(type, () => { this.last = null; });
  }
  over(image) { // begin anew on a picture
    this.canvas.width = image.naturalWidth;
    this.canvas.height = image.naturalHeight;
    this.strokes = [];
  }
  at(event) { // pixels of the picture; the box may be wider than what `object-fit: contain` shows in it
    const box = this.canvas.getBoundingClientRect(), { width, height } = this.canvas;
    const scale = Math.min(box.width / width, box.height / height);
    return [(event.clientX - box.left - (box.width - width * scale) / 2) / scale, (event.clientY - box.top - (box.height - height * scale) / 2) / scale];
  }
  get thick() { return Math.max(1, this.size * Math.max(this.canvas.width, this.canvas.height) / 512); }
  begin(event) {
    if (event.button) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.remember();
    this.last = this.at(event);
    this.draw(event);
  }
  draw(event) {
    const [x, y] = this.at(event), pen = this.pen;
    pen.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = this.thick;
    pen.strokeStyle = "#e0442a";
    pen.beginPath();
    pen.moveTo(...this.last);
    pen.lineTo(x, y + 0.001); // a tap is a dot
    pen.stroke();
    this.last = [x, y];
  }
  undo() { const before = this.strokes.pop(); if (before) this.pen.putImageData(before, 0, 0); }
  remember() {
    if (this.strokes.push(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height)) > 20) this.strokes.shift();
  }
  clear() {
    this.remember();
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }
  url() { // white where it is painted, black elsewhere; null where nothing is
    const { width, height } = this.canvas, data = width ? this.pen.getImageData(0, 0, width, height) : null;
    let painted = false;
    for (let i = 0; data && i < data.data.length; i += 4) {
      const on = data.data[i + 3] > 127 ? 255 : 0;
      painted ||= on > 0;
      data.data.fill(on, i, i + 3);
      data.data[i + 3] = 255;
    }
    if (!painted) return null;
    const flat = Object.assign(document.createElement("canvas"), { width, height });
    flat.getContext("2d").putImageData(data, 0, 0);
    return flat.toDataURL("image/png");
  }
}
