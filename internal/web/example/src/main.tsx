import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app.js';
import './style.css';

const { account } = (await (await fetch('/session')).json()) as { account: { ID: string } }; // it signs the visitor in

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <QueryClientProvider client={new QueryClient()}>
      <App account={account.ID} />
    </QueryClientProvider>
  </StrictMode>,
);
