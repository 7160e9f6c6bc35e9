// From an output to an answer that does not flicker: as edge_ran/classifier.py and edge_ran/stream/smoothing do it.

export const UNKNOWN = -1;
const FORGET_AFTER_S = 2;

/** Real values of the first output -> probabilities. rule: {gives_probabilities, temperature, least} of config.json. */
export function probabilities(values, rule) {
  if (rule.gives_probabilities && rule.temperature === 1) return Float32Array.from(values);
  const logits = rule.gives_probabilities ? values.map((v) => Math.log(Math.max(v, rule.least))) : values;
  return softmax(Float32Array.from(logits, (v) => v / rule.temperature));
}

function softmax(values) {
  const top = Math.max(...values);
  const powers = Float32Array.from(values, (v) => Math.exp(v - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

/** Smooths scores over time, holds on to an answer, says "unknown" when no class is likely enough. */
export class Smoother {
  constructor({ smoothing, threshold, margin }) {
    this.smoothing = smoothing;
    this.threshold = threshold;
    this.margin = smoothing ? margin : 0;
    this.scores = null;
    this.answer = null;
    this.last = 0;
  }

  /** scores of a frame taken at `at` seconds -> {scores, answer, changed}; answer is an index or UNKNOWN. */
  take(scores, at) {
    const keep = this.scores && this.smoothing && at - this.last <= FORGET_AFTER_S;
    this.scores = keep ? scores.map((v, i) => this.smoothing * this.scores[i] + (1 - this.smoothing) * v) : scores;
    this.last = at;
    const answer = this.choose(this.scores);
    const changed = answer !== this.answer;
    this.answer = answer;
    return { scores: this.scores, answer, changed };
  }

  choose(scores) {
    let best = scores.indexOf(Math.max(...scores));
    const before = this.answer;
    if (before === null) return scores[best] >= this.threshold ? best : UNKNOWN;
    if (before === UNKNOWN) return scores[best] >= Math.min(1, this.threshold + this.margin) ? best : UNKNOWN;
    if (best !== before && scores[best] < scores[before] + this.margin) best = before;
    return scores[best] >= this.threshold ? best : UNKNOWN;
  }
}
