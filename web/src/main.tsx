import '@fontsource-variable/inter/wght.css';
import './styles/tokens.css';
import './styles/base.css';
import './styles/forms.css';
import './styles/ready.css';
import './styles/room.css';
import './styles/transcript.css';
import { createRoot } from 'react-dom/client';
import { App } from './App';
import { applyTheme } from './prefs';

applyTheme();
const root = document.getElementById('root');
if (root) createRoot(root).render(<App />);
