// Pictures for the network: a camera, or one from the gallery.

export class Camera {
  constructor(video) {
    this.video = video;
    this.stream = null;
    this.facing = "environment";
    this.onend = () => {};
  }

  /** Open the camera. Throws an Error that says what is wrong and what to do. */
  async open() {
    this.close();
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("No camera here: open this page over https, or choose a picture.");
    }
    try {
      const wanted = { facingMode: { ideal: this.facing }, width: { ideal: 1280 }, height: { ideal: 720 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      throw new Error(reasonOf(error));
    }
    const [track] = this.stream.getVideoTracks();
    track.onended = () => this.onend("The camera was lost. Connect it again and press Pause twice.");
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  /** Take the camera of the other side when it is opened next. */
  turn() {
    this.facing = this.facing === "environment" ? "user" : "environment";
  }

  get track() {
    return this.stream?.getVideoTracks()[0] ?? null;
  }

  get hasTorch() {
    return Boolean(this.track?.getCapabilities?.().torch);
  }

  async torch(on) {
    await this.track?.applyConstraints({ advanced: [{ torch: on }] });
  }

  /** The next new picture as an ImageBitmap at the camera's own size; null where none came within a second. */
  async picture() {
    const { video } = this;
    const arrived = await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), 1000);
      const done = () => {
        clearTimeout(timer);
        resolve(true);
      };
      video.requestVideoFrameCallback ? video.requestVideoFrameCallback(done) : requestAnimationFrame(done);
    });
    if (!arrived || video.readyState < 2 || !video.videoWidth) return null;
    return createImageBitmap(video, { colorSpaceConversion: "none" });
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
  }
}

/** A file of the gallery as an ImageBitmap, upright. */
export function pictureOf(file) {
  return createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
}

function reasonOf(error) {
  if (error.name === "NotAllowedError") return "The camera was not allowed: allow it in the browser's settings for this page, or choose a picture.";
  if (error.name === "NotFoundError") return "This device has no camera: choose a picture.";
  if (error.name === "NotReadableError") return "The camera is in use by another app: close that app.";
  return `The camera cannot be opened: ${error.message}`;
}
