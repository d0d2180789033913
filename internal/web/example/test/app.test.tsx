import axe from 'axe-core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { expect, test } from 'vitest';
import { commands, page } from 'vitest/browser';
import { render } from 'vitest-browser-react';
import { App } from '../src/app.js';
import '../src/style.css';

const ada = '00000000-0000-4000-8000-00000000000a';

test('a list with bars, and one job with its items', async () => {
  document.cookie = `session=${await commands.token()}; path=/`;
  document.documentElement.lang = 'en';
  document.title = 'Jobs';
  await page.viewport(320, 640);
  await commands.sql('delete from job');
  const [running, other] = [await commands.insert(), await commands.insert()];
  await commands.sql(`update job set type = 'song_analysis' where id = $1`, [other]);
  await commands.finish(other, 'failed', 'two songs were lost');
  const screen = await render(
    <QueryClientProvider client={new QueryClient()}>
      <App account={ada} />
    </QueryClientProvider>,
  );
  await page.getByRole('button', { name: 'Matching' }).click();
  await commands.progress(running, 4);
  await expect.element(page.getByText('4 of 10')).toBeVisible();
  await expect.element(page.getByText('live')).toBeVisible(); // items are sent to who watches
  await commands.item(running, 's1', 'in_progress', '<img src=x onerror=alert(1)>');
  await expect.element(page.getByRole('region', { name: 'Matching' }).getByRole('listitem')).toHaveTextContent('<img src=x onerror=alert(1)>');
  expect(screen.container.querySelectorAll('[role=progressbar][aria-label="Matching"][aria-valuetext="4 of 10"]')).toHaveLength(2);
  const { violations } = await axe.run();
  expect(violations.map(({ id, impact, nodes }) => [id, impact, nodes[0]?.html])).toEqual([]);
  expect(document.documentElement.scrollWidth).toBe(320);

  await page.getByRole('button', { name: 'Song analysis' }).click();
  await expect.element(page.getByRole('alert')).toHaveTextContent('two songs were lost');
  await page.getByRole('button', { name: 'Matching' }).click();
  await commands.finish(running);
  await expect.element(page.getByRole('button', { name: /Matching.*completed/ })).toBeVisible();
  await expect.element(page.getByRole('status')).toHaveTextContent('Matching: completed');
});
