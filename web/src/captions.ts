// Captions of both sides, from text streams on the topic `lk.transcription`.
//
// A person's speech comes as whole texts, each a stream of its own with the same segment id, the last one final.
// The interviewer's comes as one stream that grows. Both reduce to: this segment now reads so.

export interface Caption {
  segment: string;
  identity: string;
  text: string;
  final: boolean;
  /** The stream that wrote the text last. */
  stream: string;
}

export interface CaptionUpdate {
  segment: string;
  stream: string;
  identity: string;
  /** The whole text that this stream has carried so far. */
  text: string;
  final: boolean;
}

/** Far above a long interview on one screen; older lines are in the transcript. */
const MAX_CAPTIONS = 300;

export function reduceCaptions(captions: Caption[], update: CaptionUpdate): Caption[] {
  const at = captions.findIndex((c) => c.segment === update.segment && c.identity === update.identity);
  const text = update.text.trim();
  const old = captions[at];
  if (!old) {
    if (!text) return captions;
    return [...captions, { ...update, text }].slice(-MAX_CAPTIONS);
  }
  // An interim text that arrives behind the final one is old news.
  if (old.final && !update.final && old.stream !== update.stream) return captions;
  if (!text) {
    // The final word is that nothing was heard of this, say because the interviewer was interrupted before it.
    if (update.final) return captions.filter((_, i) => i !== at);
    // A stream that has only begun does not empty the line.
    return captions;
  }
  const next: Caption = { ...old, stream: update.stream, text, final: old.final || update.final };
  if (next.text === old.text && next.final === old.final && next.stream === old.stream) return captions;
  return captions.map((c, i) => (i === at ? next : c));
}
