import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// `npm run dev` serves the page alone; everything else is asked of a running `viva serve --dev`.
const server = 'http://127.0.0.1:7880';

export default defineConfig({
  plugins: [react()],
  build: {
    target: 'es2022',
    // livekit-client alone is above the default limit of 500 kB.
    chunkSizeWarningLimit: 1200,
    rollupOptions: {
      output: {
        // The media client changes rarely, is most of the weight and is needed in the room only: a file of its own.
        manualChunks: (id) => {
          if (/vite\/preload-helper|node_modules\/(react|react-dom|scheduler)\//.test(id)) return 'react';
          return id.includes('node_modules') && !id.includes('@fontsource') ? 'media' : undefined;
        },
      },
    },
  },
  server: {
    proxy: {
      '/v1': server,
      '/rtc': { target: server, ws: true },
    },
  },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
});
