#!/bin/sh
# janitor.sh DIR: waits for the end of its standard input, which the test process holds open: it ends
# with that process, whether by return, crash, kill -9 or Ctrl-C. Then ends every process whose id
# stands in DIR/pid/, runs DIR/cleanup where there is one, and removes DIR.
dir=$1
trap '' HUP INT TERM
cat >/dev/null

# The number may belong to another process by now: only one with DIR in its command line is ours.
ours() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$dir"; }

for file in "$dir"/pid/*; do
  pid=$(cat "$file" 2>/dev/null) || continue
  if ours "$pid"; then kill -9 "$pid"; fi
done
for file in "$dir"/pid/*; do
  pid=$(cat "$file" 2>/dev/null) || continue
  while ours "$pid"; do sleep 0.02; done
done
if [ -e "$dir/cleanup" ]; then sh "$dir/cleanup"; fi
rm -rf "$dir"
