// The words of the stories: what the interviewee says, and what the interviewer of the fixtures asks.

/** Answers that the ear knows. Each is heard without error in the voices of speech.mjs through Opus. */
export const ANSWERS = {
  /** 10 words: too few for the first question, so that it is followed up. */
  short: 'i am a backend engineer and i build payment systems',
  part: 'last year i led the migration of our billing service',
  steps: 'we moved the traffic in small steps and measured every step',
  hardest: 'the hardest part was keeping the old and the new database equal',
  again: 'next time i would write the rollback plan first',
  repeat: 'could you repeat the question please',
};
export const SENTENCES = Object.values(ANSWERS);

/** fixtures/plans/short.yaml */
export const QUESTIONS = {
  project: 'Tell me about a project that you are proud of.',
  probe: 'What was your own part in it?',
  hardest: 'What was the hardest problem with the database?',
  again: 'What would you do in another way today?',
};
export const SHORT_PLAN = 'A short talk about one project';
export const ONE_PLAN = 'One question';
export const INTERVIEWER = 'viva-interviewer';
