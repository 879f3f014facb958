// What bad networks do to a call: real browsers across a link with faults. Measures, and prints a table beside the goals.
//
// node nettest/main.mjs [audio] [video] [rate] [slow]     all of them where none is named
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output } from '../lib/paths.mjs';
import { sleep, until } from '../lib/wait.mjs';
import { faultyNetwork } from './network.mjs';
import { Person } from './people.mjs';

const SEEDS = (process.env.NETTEST_SEEDS ?? '1,2,3').split(',').map(Number);
const MEASURED_S = Number(process.env.NETTEST_SECS ?? 20);
/** The jitter buffer is given this long to find its size for a fault. */
const SETTLE_S = 6;
/** A fake microphone on a starved machine runs late and then hurries, and samples are concealed with nothing lost. */
const STARVED = 0.04;
const TRIES = 3;
/** A freeze, as who looks on calls it. */
const FREEZE_MS = 300;

const round = (value, digits = 2) => Number(value.toFixed(digits));

/** What was counted between two looks. */
const between = (a, b, kind, name) => (b[kind][name] ?? 0) - (a[kind][name] ?? 0);

function concealedPercent(a, b) {
  const audible = between(a, b, 'audio', 'concealedSamples') - between(a, b, 'audio', 'silentConcealedSamples');
  return (100 * audible) / between(a, b, 'audio', 'totalSamplesReceived');
}

/** The mean time that sound waits in the jitter buffer, ms. */
const bufferMs = (a, b) =>
  (1_000 * between(a, b, 'audio', 'jitterBufferDelay')) / between(a, b, 'audio', 'jitterBufferEmittedCount');

/** Looks at everybody before and after `seconds`, and again where the speaker's machine was starved meanwhile. */
async function watch(people, seconds) {
  for (let tried = 1; ; tried++) {
    const before = await look(people);
    await sleep(seconds * 1_000);
    const after = await look(people);
    const [a, b] = [before.speaker, after.speaker];
    const pace = (b.sent.spoken - a.sent.spoken) / ((b.at - a.at) / 1_000);
    const starved = Math.abs(pace - 1) > STARVED;
    if (!starved || tried === TRIES) return { before, after, starved };
    console.error(`the microphone ran at ${round(pace)} of its pace: measuring again`);
  }
}

async function look(people) {
  const entries = Object.entries(people).map(async ([name, person]) => [name, await person.look()]);
  return Object.fromEntries(await Promise.all(entries));
}

/** Pictures decoded for each that was sent, in percent, and pauses that one sees. */
async function pictures(person, a, b, sender) {
  const sent = (b.sent.layers[sender.width] ?? 0) - (a.sent.layers[sender.width] ?? 0);
  const decoded = between(sender.before, sender.after, 'video', 'framesDecoded');
  const gaps = await person.gaps(sender.before.at);
  const freezes = gaps.filter(({ ms }) => ms > FREEZE_MS);
  return { percent: (100 * decoded) / sent, freezes: freezes.length, longestMs: Math.max(0, ...gaps.map(({ ms }) => ms)) };
}

class Report {
  rows = [];

  row(what, measured, goal, met, starved) {
    const verdict = starved ? 'not told: the machine was starved' : met === undefined ? '' : met ? 'met' : '**missed**';
    this.rows.push({ what, measured, goal, verdict });
    console.error(`${what}: ${measured}${goal ? ` (goal ${goal}: ${verdict})` : ''}`);
  }

  print() {
    console.log('| network | measured | goal | |\n|---|---|---|---|');
    for (const { what, measured, goal, verdict } of this.rows) console.log(`| ${what} | ${measured} | ${goal ?? ''} | ${verdict} |`);
    writeFileSync(join(output('nettest'), 'figures.json'), JSON.stringify(this.rows, null, 2));
  }
}

/** A call in a network of its own. `near`: who else hears it, without faults. */
async function call(seed, { video = false, near = false }, body) {
  const network = await faultyNetwork(seed);
  const people = {};
  try {
    network.faults('');
    people.speaker = await Person.enter(network, 'speaker', 'near', { room: 'lab', publish: true, video });
    people.far = await Person.enter(network, 'far', 'far', { room: 'lab' });
    if (near) people.near = await Person.enter(network, 'near', 'near', { room: 'lab' });
    for (const name of ['far', ...(near ? ['near'] : [])]) {
      await until(`${name} to receive`, async () => {
        const { audio, video: pictures } = await people[name].look();
        return audio.packetsReceived > 50 && (!video || pictures.framesDecoded > 15);
      });
    }
    return await body(network, people);
  } finally {
    for (const person of Object.values(people)) await person.leave();
    await network.down();
  }
}

const measurements = {
  async audio(report) {
    const seen = new Map([[10, []], [20, []], [30, []]]);
    for (const seed of SEEDS) {
      await call(seed, {}, async (network, people) => {
        for (const [loss, figures] of seen) {
          network.faults(`loss=${loss}`);
          await sleep(SETTLE_S * 1_000);
          const link = await network.counts();
          const { before, after, starved } = await watch(people, MEASURED_S);
          const now = await network.counts();
          const lost = (100 * (now.lost - link.lost)) / (now.taken - link.taken);
          const figure = { concealed: concealedPercent(before.far, after.far), buffer: bufferMs(before.far, after.far), lost, starved };
          figures.push(figure);
          console.error(`seed ${seed}, loss ${loss} %: ${JSON.stringify(figure)}`);
        }
      });
    }
    const goals = { 10: 0.3, 20: 1, 30: 2 };
    for (const [loss, figures] of seen) {
      const good = figures.filter(({ starved }) => !starved);
      const told = (good.length ? good : figures).map(({ concealed }) => concealed).sort((a, b) => a - b);
      const buffer = Math.max(...figures.map((figure) => figure.buffer));
      const measured = `${told.map((figure) => round(figure)).join(', ')} % of the samples concealed; jitter buffer up to ${round(buffer, 0)} ms`;
      report.row(`sound, ${loss} % lost`, measured, `≤ ${goals[loss]} %, each time`, told.at(-1) <= goals[loss], !good.length);
    }
  },

  async video(report) {
    await call(SEEDS[0], { video: true }, async (network, people) => {
      network.faults('loss=10');
      await sleep(SETTLE_S * 1_000);
      const { before, after, starved } = await watch(people, 60);
      const sender = { before: before.far, after: after.far, width: after.far.video.width };
      const seen = await pictures(people.far, before.speaker, after.speaker, sender);
      const measured = `${round(seen.percent, 1)} % of the frames of ${sender.width} px decoded; ${seen.freezes} pauses over ${FREEZE_MS} ms in a minute, the longest ${round(seen.longestMs, 0)} ms; ${between(before.far, after.far, 'video', 'nackCount')} NACKs, ${between(before.far, after.far, 'video', 'pliCount')} PLIs`;
      report.row('picture, 10 % lost', measured, '≥ 95 %, no pause', seen.percent >= 95 && !seen.freezes, starved);
      report.row('sound beside it', `${round(concealedPercent(before.far, after.far))} % concealed`, '≤ 0.3 %', concealedPercent(before.far, after.far) <= 0.3, starved);
    });
  },

  async rate(report) {
    await call(SEEDS[0], { video: true }, async (network, people) => {
      const phase = async (kbit, seconds) => {
        network.faults(`rate=${kbit} queue=200`);
        const { before, after, starved } = await watch({ speaker: people.speaker, far: people.far }, seconds);
        const gaps = await people.far.gaps(before.far.at);
        const fps = between(before.far, after.far, 'video', 'framesDecoded') / seconds;
        const kbps = (8 * between(before.far, after.far, 'video', 'bytesReceived')) / seconds / 1_000;
        const measured = `${round(fps, 1)} frames/s of ${after.far.video.width} px, ${round(kbps, 0)} kbit/s; ${gaps.filter(({ ms }) => ms > FREEZE_MS).length} pauses, the longest ${round(Math.max(0, ...gaps.map(({ ms }) => ms)) / 1_000, 1)} s; ${round(concealedPercent(before.far, after.far))} % of the sound concealed`;
        return { measured, starved };
      };
      for (const [what, kbit, seconds] of [['2 Mbit/s', 2_000, 15], ['then 300 kbit/s for 30 s', 300, 30], ['then 2 Mbit/s again', 2_000, 20]]) {
        const { measured } = await phase(kbit, seconds);
        report.row(what, measured);
      }
    });
  },

  async slow(report) {
    await call(SEEDS[0], { video: true, near: true }, async (network, people) => {
      network.faults('rate=100 queue=200');
      const { before, after, starved } = await watch(people, MEASURED_S);
      const lost = between(before.near, after.near, 'audio', 'packetsLost') + between(before.near, after.near, 'video', 'packetsLost');
      const sender = { before: before.near, after: after.near, width: after.near.video.width };
      const seen = await pictures(people.near, before.speaker, after.speaker, sender);
      const measured = `the other: ${lost} packets lost, ${round(seen.percent, 1)} % of the frames, ${seen.freezes} pauses, ${round(concealedPercent(before.near, after.near))} % concealed`;
      report.row('one of two receivers at 100 kbit/s', measured, 'no loss, no pause', lost <= 0 && !seen.freezes, starved);
      report.row('that one', `${round(concealedPercent(before.far, after.far))} % of the sound concealed`);
    });
  },
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in measurements));
if (unknown.length) {
  console.error(`there is no measurement ${unknown}; there are ${Object.keys(measurements).join(', ')}`);
  process.exit(2);
}
const report = new Report();
for (const name of wanted.length ? wanted : Object.keys(measurements)) await measurements[name](report);
report.print();
