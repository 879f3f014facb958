import { lazy, Suspense } from 'react';
import { Page } from './components/Page';
import { route, usePath } from './router';
import { Join } from './screens/Join';
import { Ready } from './screens/Ready';
import { Start } from './screens/Start';
import { NotFound } from './screens/NotFound';
import { TranscriptScreen } from './screens/Transcript';

// The media client is most of the page's weight and nobody needs it before the room.
const CallScreen = lazy(() => import('./screens/Call'));

export function App() {
  const at = route(usePath());
  switch (at.page) {
    case 'start':
      return <Start />;
    case 'ready':
      return <Ready />;
    case 'join':
      return <Join key={at.id} id={at.id} />;
    case 'room':
      return (
        <Suspense fallback={<Page title="Viva">{null}</Page>}>
          <CallScreen key={at.id} id={at.id} />
        </Suspense>
      );
    case 'transcript':
      return <TranscriptScreen key={at.id} id={at.id} />;
    case 'unknown':
      return <NotFound />;
  }
}
