// The Playground: a form by A1111's keys, whose body is the API's too. LoRA chips are the tags of the prompt.
const form = $("[data-play]"), field = name => form.elements[name], stage = $("[data-stage]"), brush = new Brush(stage);
const TAG = /<lora:([^:>]+)(?::([^:>]*))?([^>]*)>/g;
let mode = "txt2img", init = null, busy = false, current = null;

// Chips
function chips() {
  const box = $("[data-chips]"), tags = [...field("prompt").value.matchAll(TAG)];
  if (box.dataset.names !== tags.map(tag => tag[1]).join("\n")) {
    box.dataset.names = tags.map(tag => tag[1]).join("\n");
    box.replaceChildren(...tags.map((tag, i) => {
      const chip = Object.assign(document.createElement("div"), { className: "chip" });
      chip.innerHTML = '<span></span><input type="range" min="-1" max="2" step="0.05" data-testid="chip-weight"><output class="numbers"></output><button class="button quiet square" type="button" data-testid="chip-remove"><svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="m6 6 12 12M18 6 6 18"/></svg></button>';
      const [name, slider, , remove] = chip.children;
      name.textContent = name.title = tag[1];
      Object.assign(slider, { ariaLabel: `Weight of ${tag[1]}`, oninput: () => retag(i, (_, n, w, rest) => `<lora:${n}:${+slider.value}${rest}>`) });
      Object.assign(remove, { ariaLabel: `Take ${tag[1]} out`, onclick: () => retag(i, () => "") });
      return chip;
    }));
  }
  tags.forEach((tag, i) => { for (const part of [...box.children[i].children].slice(1, 3)) part.value = tag[2] ? +tag[2] || 0 : 1; });
}
function retag(place, made) { // change the tag at a place, counted from 0
  let i = 0;
  field("prompt").value = field("prompt").value.replace(TAG, (...parts) => i++ === place ? made(...parts) : parts[0]).replace(/ {2,}/g, " ");
  chips();
}
field("prompt").addEventListener("input", chips);
on("change", "[data-add-lora]", select => {
  if (select.value) field("prompt").value = `${field("prompt").value.trimEnd()} <lora:${select.value}:1>`.trimStart();
  select.value = "";
  chips();
});

// Ctrl+Up, Ctrl+Down: emphasis of the word, or of what is selected, as in A1111
form.addEventListener("keydown", event => {
  const area = event.target, up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (!(event.ctrlKey || event.metaKey) || !up || !area.matches("[data-emphasis]")) return;
  event.preventDefault();
  const text = area.value;
  let { selectionStart: from, selectionEnd: to } = area;
  const tag = [...text.matchAll(TAG)].find(m => m.index <= from && to <= m.index + m[0].length);
  const around = [...text.matchAll(/\(([^()]*):(-?[\d.]+)\)/g)].find(m => m.index <= from && to <= m.index + m[0].length);
  let made;
  if (tag) [from, to, made] = [tag.index, tag.index + tag[0].length, `<lora:${tag[1]}:${+((+tag[2] || 0) + up * 0.1).toFixed(2)}${tag[3]}>`];
  else if (around) {
    const weight = +(+around[2] + up * 0.1).toFixed(2);
    [from, to, made] = [around.index, around.index + around[0].length, weight === 1 ? around[1] : `(${around[1]}:${weight})`];
  } else {
    if (from === to) {
      while (from > 0 && /[^\s,()<>]/.test(text[from - 1])) from--;
      while (to < text.length && /[^\s,()<>]/.test(text[to])) to++;
    }
    if (from === to) return;
    made = `(${text.slice(from, to)}:${(1 + up * 0.1).toFixed(1)})`;
  }
  area.setRangeText(made, from, to, "select");
  if (made.startsWith("(")) area.setSelectionRange(from + 1, from + made.lastIndexOf(":"));
  area.dispatchEvent(new Event("input", { bubbles: true }));
});

// Modes, the picture to begin from, and its mask
function setMode(value) {
  mode = value;
  $$("[data-mode]").forEach(b => b.setAttribute("aria-pressed", b.dataset.mode === value));
  $("[data-from]").hidden = value === "txt2img";
  $$("[data-inpaint]").forEach(part => { part.hidden = value !== "inpaint"; });
  brush.canvas.hidden = value !== "inpaint";
}
on("click", "[data-mode]", button => setMode(button.dataset.mode));
async function begin(blob) {
  const url = await dataUrl(blob), image = new Image();
  image.alt = "The picture to begin from";
  image.src = url;
  await image.decode().catch(() => { throw toast("That is no picture that can be shown here."); });
  init = url;
  brush.over(image);
  stage.replaceChildren(image, brush.canvas);
  if (!field("width").value) for (const [name, side] of [["width", image.naturalWidth], ["height", image.naturalHeight]]) field(name).value = Math.min(2048, Math.max(16, Math.round(side / 8) * 8));
}
const dataUrl = blob => new Promise((yes, no) => Object.assign(new FileReader(), { onload() { yes(this.result); }, onerror: no }).readAsDataURL(blob));
on("change", "[data-init]", input => { if (input.files[0]) begin(input.files[0]); input.value = ""; });
on("input", "[data-brush]", input => { brush.size = +input.value; });
on("change", "[data-model]", model => { field("width").placeholder = field("height").placeholder = model.selectedOptions[0].dataset.side; });
const erase = () => { brush.erasing = !brush.erasing; $("[data-erase]").setAttribute("aria-pressed", brush.erasing); };
const resize = by => { const input = $("[data-brush]"); input.value = +input.value + by; brush.size = +input.value; };
for (const [part, act] of [["[data-erase]", erase], ["[data-mask-undo]", () => brush.undo()], ["[data-mask-clear]", () => brush.clear()]]) on("click", part, act);
document.addEventListener("keydown", event => {
  if (mode !== "inpaint" || typing(event.target) || $("dialog[open]")) return;
  const act = event.ctrlKey || event.metaKey ? { z: () => brush.undo() } : { "[": () => resize(-8), "]": () => resize(8), e: erase };
  const key = act[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (key) { event.preventDefault(); key(); }
});

// The body, as A1111's API takes it
const COUNTED = ["Just resize", "Crop and resize", "Resize and fill"];
function body() {
  const told = { override_settings: { sd_model_checkpoint: $("[data-model]").value } };
  for (const input of form.elements) {
    if (!input.name || input.value === "") continue;
    told[input.name] = input.type === "number" ? +input.value : input.value;
  }
  if (mode === "txt2img") for (const key of ["denoising_strength", "resize_mode"]) delete told[key];
  else Object.assign(told, { init_images: init ? [init] : [], resize_mode: COUNTED.indexOf(told.resize_mode) });
  const mask = mode === "inpaint" ? brush.url() : null;
  if (mask) Object.assign(told, { mask, inpainting_fill: field("inpainting_fill").selectedIndex, inpaint_full_res: told.inpaint_full_res === "Only masked" });
  else for (const key of ["mask_blur", "inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding"]) delete told[key];
  return told;
}
const without = told => ({ ...told, prompt: told.prompt.replace(TAG, "").replace(/ {2,}/g, " ").trim() });

async function generate() {
  if (busy) return api("POST", "/api/draw/interrupt");
  if (mode !== "txt2img" && !init) return toast("Choose the picture to begin from first.");
  setBusy(true);
  const told = body(), both = $("[data-both]").checked && (told.prompt || "").match(TAG);
  const drawn = await api("POST", "/api/draw", told);
  let plain = null;
  if (drawn?.pictures.length && both && !drawn.interrupted) plain = await api("POST", "/api/draw", without({ ...told, prompt: told.prompt, seed: drawn.pictures[0].seed }));
  setBusy(false);
  if (!drawn) return;
  const rows = drawn.pictures.map((picture, i) => [[picture, plain ? "With LoRA" : ""], ...(plain?.pictures[i] ? [[plain.pictures[i], "Without"]] : [])]).flat();
  if (rows.length) show(rows);
  keep(rows.map(row => row[0]));
  const notes = [...new Set([...drawn.warnings, ...(plain?.warnings ?? []), ...(drawn.interrupted ? ["Interrupted: the picture is as it was then."] : [])])];
  $("[data-warnings]").hidden = !notes.length;
  $("[data-warning-text]").textContent = notes.join(" ");
}
function setBusy(yes) {
  busy = yes;
  $("[data-generate]").textContent = yes ? "Interrupt" : "Generate";
  $("[data-busy]").hidden = !yes;
  if (!yes) return $(".preview")?.remove();
  $("[data-warnings]").hidden = true;
  Object.assign($("[data-progress]"), { value: 0 }).scrollIntoView({ block: "nearest" });
  $("[data-progress-text]").textContent = "Starting …";
}
on("click", "[data-generate]", generate);
on("submit", "[data-play]", (_, event) => event.preventDefault());

// Progress and previews
const heard = new EventSource("/api/draw/events");
heard.addEventListener("progress", event => {
  const now = JSON.parse(event.data);
  if (!busy || !now.busy) return;
  $("[data-progress]").value = now.fraction;
  $("[data-progress-text]").textContent = now.steps ? `Step ${now.step} of ${now.steps} · ${Math.ceil(now.eta)} s left` : `${now.text} …`;
  if (!now.preview) return;
  const image = $(".shown .preview") || Object.assign(new Image(), { className: "preview", alt: "Preview" });
  image.src = now.preview;
  if (!image.isConnected) $("[data-shown]").replaceChildren(image);
});

// What is shown
function show(rows) {
  $("[data-shown]").replaceChildren(...rows.map(([picture, words]) => {
    const figure = document.createElement("figure"), button = Object.assign(document.createElement("button"), { type: "button" }), image = new Image();
    Object.assign(image, { src: picture.url, alt: picture.infotext.split("\n")[0].slice(0, 200) || "A picture", className: picture.width < 200 ? "tiny" : "" });
    image.dataset.testid = "picture";
    button.append(image);
    button.onclick = () => choose(picture, button);
    figure.append(button);
    if (words) figure.append(Object.assign(document.createElement("figcaption"), { textContent: words }));
    return figure;
  }));
  choose(rows[0][0], $("[data-shown] button"));
}
function choose(picture, button) {
  current = picture;
  $$("[data-shown] button").forEach(each => each.setAttribute("aria-pressed", each === button && $$("[data-shown] button").length > 1));
  $("[data-actions]").hidden = $("[data-about]").hidden = false;
  Object.assign($("[data-download]"), { href: picture.url, download: picture.name });
  $("[data-infotext]").textContent = picture.infotext;
}
function keep(pictures) {
  $("[data-none]").hidden = true;
  for (const picture of pictures.toReversed()) {
    const item = document.createElement("li"), button = Object.assign(document.createElement("button"), { type: "button", ariaLabel: `Show ${picture.name}` });
    button.dataset.picture = picture.url;
    button.append(Object.assign(new Image(), { src: picture.url, alt: "" }));
    item.append(button);
    $("[data-gallery]").prepend(item);
  }
}
const blobOf = async url => (await fetch(url)).blob();
const read = async blob => api("POST", "/api/draw/read", { image: await dataUrl(blob) }); // what a picture says of itself
on("click", "[data-picture]", async button => {
  const url = button.dataset.picture, told = await read(await blobOf(url)), name = url.split("/").pop();
  if (told) show([[{ url, name, seed: told.settings.seed ?? -1, infotext: told.text, width: told.settings.width ?? 512 }, ""]]);
});
on("click", "[data-send]", async button => { await begin(await blobOf(current.url)); setMode(button.dataset.send); stage.scrollIntoView({ block: "nearest" }); });
on("click", "[data-remove]", async () => {
  if (!await api("DELETE", current.url)) return;
  $(`[data-picture="${current.url}"]`)?.closest("li").remove();
  $("[data-shown]").replaceChildren();
  $("[data-actions]").hidden = $("[data-about]").hidden = true;
});

// Settings come back
function restore(told) {
  if (!told.text) return toast("This picture says nothing of how it was drawn.");
  for (const [key, value] of Object.entries({ prompt: "", negative_prompt: "", n_iter: 1, ...told.settings })) if (field(key)) field(key).value = value;
  chips();
  toast("The picture's settings are in the form.");
}
on("click", "[data-restore]", async () => restore(await read(await blobOf(current.url)) ?? {}));
on("click", "[data-random], [data-again]", button => { field("seed").value = button.matches("[data-again]") ? current?.seed ?? -1 : -1; });
for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, async event => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  const here = event.target.closest?.("[data-stage]"), file = event.dataTransfer.files[0];
  document.body.classList.toggle("over", type === "dragover" && !here);
  stage.classList.toggle("over", type === "dragover" && !!here);
  if (type !== "drop" || !file) return;
  if (here) return begin(file);
  const told = await read(file);
  if (told) restore(told);
});

// The same by the API
on("click", "[data-api-call]", button => {
  const told = body();
  for (const axis of "xyz") delete told[`${axis}_axis`];
  for (const key of ["init_images", "mask"]) if (told[key]) told[key] = key === "mask" ? "BASE64 OF THE MASK" : ["BASE64 OF THE PICTURE"];
  const url = `${location.origin}/sdapi/v1/${mode === "txt2img" ? "txt2img" : "img2img"}`, json = JSON.stringify(told, null, 2);
  $("[data-call=curl]").textContent = `curl ${url} -H 'Content-Type: application/json' -d '${json.replaceAll("'", "'\\''")}'`;
  const python = json.replace(/\b(true|false|null)(?=,?$)/gm, word => ({ true: "True", false: "False", null: "None" })[word]);
  $("[data-call=Python]").textContent = `import base64, requests\n\nanswer = requests.post("${url}", json=${python}).json()\nwith open("picture.png", "wb") as file:\n    file.write(base64.b64decode(answer["images"][0]))`;
  open($("#call"), button);
});
chips();
