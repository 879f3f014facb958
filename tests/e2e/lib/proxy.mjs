// A TCP relay in front of the server, to cut signalling as a network does: media (UDP) does not go through it.
import { connect, createServer } from 'node:net';

export async function relay(port) {
  const open = new Set();
  let refusing = false;
  const server = createServer((near) => {
    if (refusing) return near.destroy();
    const far = connect(port, '127.0.0.1');
    for (const [a, b] of [[near, far], [far, near]]) {
      open.add(a);
      a.pipe(b);
      a.on('error', () => b.destroy());
      a.on('close', () => {
        open.delete(a);
        b.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    base: `http://localhost:${server.address().port}`,
    /** Breaks every connection without a goodbye. */
    cut: () => open.forEach((socket) => socket.resetAndDestroy()),
    refuse: (yes) => (refusing = yes),
    stop: () => {
      open.forEach((socket) => socket.destroy());
      server.close();
    },
  };
}
