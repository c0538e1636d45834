/** Files in and out. */
const LARGEST_TEXT = 1 << 20;
const LARGEST_IMAGE = 8 << 20;
const IMAGES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

const OTHER = /^(?:image\/(?!svg)|audio|video)/;

/** A file as an attachment: {name, size, text} or {name, size, image}; throws in words for people. */
export async function attachment(file, images) {
  const { name, size } = file;
  if (IMAGES.includes(file.type)) {
    if (!images) throw new Error(`This model takes no images (${name}).`);
    if (size > LARGEST_IMAGE) throw new Error(`${name} is larger than 8 MB.`);
    return { name, size, image: await address(file) };
  }
  if (OTHER.test(file.type)) throw new Error(`${name} is neither a text file nor a PNG, JPEG, WebP or GIF picture.`);
  if (size > LARGEST_TEXT) throw new Error(`${name} is larger than 1 MB.`);
  return { name, size, text: readable(name, await file.arrayBuffer()) };
}

function readable(name, bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch {
    // said below
  }
  throw new Error(`${name} is not a text file.`);
}

function address(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} could not be read.`));
    reader.readAsDataURL(file);
  });
}

/** Offer a text as a file. */
export function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Offer a conversation, or a list of them, as a file that can be imported. */
export function exported(name, trees) {
  download(`${name}.json`, JSON.stringify(trees, null, 2), "application/json");
}

/** Put a text on the clipboard; pages over plain HTTP, or without permission, have only the old way. */
export async function copy(text) {
  if (await navigator.clipboard?.writeText(text).then(() => true, () => false)) return;
  const area = document.createElement("textarea");
  const before = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  before.focus({ preventScroll: true });
}

export function bytes(size) {
  return size < 1024 ? `${size} B` : size < 1 << 20 ? `${Math.round(size / 1024)} KB` : `${(size / (1 << 20)).toFixed(1)} MB`;
}
