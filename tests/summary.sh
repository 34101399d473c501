#!/bin/bash
# Runs a test command, shows what it prints, and closes with the numbers and the names of what failed.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
begin=$SECONDS
"$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}

echo
echo "Summary"
awk '/^test result: /{gsub(";", ""); passed += $4; failed += $6; ignored += $8; programs++}
     END {printf "  %d tests passed, %d failed, %d ignored, in %d test programs\n", passed, failed, ignored, programs}' "$log"
echo "  $((SECONDS - begin)) seconds"
if [ -n "${CASEMATE_TEST_SKIP:-}" ]; then echo "  waived by CASEMATE_TEST_SKIP: $CASEMATE_TEST_SKIP"; fi
if [ "$code" -ne 0 ]; then
    sed -n 's/^test \(.*\) \.\.\. FAILED$/  failed: \1/p' "$log"
    echo "  FAILED"
else
    echo "  OK"
fi
exit "$code"
