// From what was chosen to a place in the call: the interview is made (or joined), then each consent is recorded,
// and only then does the page enter the room.
import { api } from './api';
import { PURPOSES } from './consent';
import { saveCall, type Call, type Draft } from './session';

async function admit(draft: Draft): Promise<Call> {
  const common = { name: draft.name, planTitle: draft.planTitle, noticeVersion: draft.noticeVersion };
  if (draft.kind === 'practice') {
    const made = await api.create({ plan: draft.plan, persona: draft.persona, name: draft.name });
    const { id, room, url, token, identity, invite_path } = made;
    return { ...common, id, room, url, token, identity, invitePath: invite_path, role: 'interviewee' };
  }
  const { room, url, token, identity } = await api.join(draft.interview, { invite: draft.invite, name: draft.name });
  return { ...common, id: draft.interview, room, url, token, identity, role: 'interviewer' };
}

/** `made` is a place that an earlier, half-failed attempt got; it is used again rather than making a second. */
export async function enter(draft: Draft, made: Call | undefined, onMade: (call: Call) => void): Promise<Call> {
  const call = made ?? (await admit(draft));
  if (!made) onMade(call);
  for (const purpose of PURPOSES) {
    await api.setConsent(call.id, call.token, purpose, draft.consents[purpose], draft.noticeVersion);
  }
  saveCall(call);
  return call;
}
