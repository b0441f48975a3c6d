#!/bin/sh
# Runs a job for one logical date, for cron: nightly.sh JOB.toml [DATE]
# Prints nothing when all is well, because cron mails whatever is printed.

DONE=0 FAULT=1 REFUSED=2 SOME_FAILED=3 GATE=4 LOCKED=5 TEMPORARY=6 INTERRUPTED=130

job=$1
# Today where the data come from: only rows before that day are used.
as_of=${2:-$(TZ=UTC date +%F)}
# Of this night alone; the log of all runs is in the state folder of the job.
log=$job.cron.log
: >"$log"
# Seconds to wait before each further try, when trouble may go away by itself.
waits=${SCISEQ_WAITS-300 900 1800}

for wait in $waits last; do
  sciseq run "$job" --as-of "$as_of" >>"$log" 2>&1
  code=$?
  [ "$code" -eq "$TEMPORARY" ] && [ "$wait" != last ] || break
  sleep "$wait"
done

case $code in
  "$DONE" | "$LOCKED") exit "$DONE" ;; # the run that holds the lock does the work
  "$SOME_FAILED") echo "$job $as_of: done, but some series failed; see the report" ;;
  "$GATE") echo "$job $as_of: stopped by a quality gate, nothing was written" ;;
  "$REFUSED") echo "$job $as_of: mend the job file or its input" ;;
  "$TEMPORARY") echo "$job $as_of: still in trouble after the last try" ;;
  "$INTERRUPTED") echo "$job $as_of: interrupted; the next run goes on" ;;
  "$FAULT" | *) echo "$job $as_of: fault, exit code $code" ;;
esac
tail -n 20 "$log"
exit "$code"
