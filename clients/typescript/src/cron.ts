/** Cron expressions with five fields, in UTC. */

const RANGES: [number, number][] = [[0, 59], [0, 23], [1, 31], [1, 12], [0, 7]];

const NAMES = [
  ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'],
  ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'],
];

function field(text: string, at: number, expression: string): Set<number> {
  const [low, high] = RANGES[at]!;
  const values = new Set<number>();
  const bad = () => new SyntaxError(`'${expression}' is no cron expression: '${text}' is not understood`);
  const number = (value: string): number => {
    const named = at < 3 ? -1 : NAMES[at - 3]!.indexOf(value.toLowerCase());
    const found = named >= 0 ? named + (at === 3 ? 1 : 0) : /^\d+$/.test(value) ? Number(value) : NaN;
    if (!(found >= low && found <= high)) throw bad();
    return found;
  };
  for (const part of text.split(',')) {
    const match = /^(\*|\w+)(?:-(\w+))?(?:\/(\d+))?$/.exec(part);
    if (!match) throw bad();
    const [, first, last, step] = match;
    const from = first === '*' ? low : number(first!);
    const to = first === '*' ? high : last !== undefined ? number(last) : step !== undefined ? high : from;
    if (to < from || step === '0') throw bad();
    for (let value = from; value <= to; value += Number(step ?? 1)) values.add(at === 4 ? value % 7 : value);
  }
  return values;
}

/** Whether `expression` means the minute of a time. */
export function cron(expression: string): (time: Date) => boolean {
  const texts = expression.trim().split(/\s+/);
  if (texts.length !== 5) throw new SyntaxError(`'${expression}' is no cron expression: it has ${texts.length} fields and not 5`);
  const [minutes, hours, days, months, weekdays] = texts.map((text, at) => field(text, at, expression)) as [Set<number>, Set<number>, Set<number>, Set<number>, Set<number>];
  // Where both days are named, one of them is enough.
  const both = texts[2] !== '*' && texts[4] !== '*';
  return (time) => {
    const day = days.has(time.getUTCDate());
    const weekday = weekdays.has(time.getUTCDay());
    return minutes.has(time.getUTCMinutes()) && hours.has(time.getUTCHours()) && months.has(time.getUTCMonth() + 1) && (both ? day || weekday : day && weekday);
  };
}
