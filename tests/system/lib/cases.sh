# shellcheck shell=bash
# Runs test cases in parallel, each in a directory of its own, and counts their results.

cases_running=0 cases_passed=0 cases_failed=0

# run_case NAME COMMAND...: runs a case in the background, with $net as the name of its network and $work as its
# directory. Skips the case if its name does not contain $pattern. A failed case prints all of its logs.
run_case() {
    [[ $1 == *"${pattern-}"* ]] || return 0
    # Cases mostly wait, so more of them can run than there are processors.
    ((cases_running < 8)) || collect_case
    cases_running=$((cases_running + 1))
    execute_case "$@" &
}

execute_case() {
    local name=$1 net work begin=$EPOCHREALTIME elapsed log
    shift
    net=$(tr -cs '[:alnum:]\n' - <<<"$name")
    work=/run/$net
    mkdir "$work"
    "$@" >"$work/case.log" 2>&1 &
    if wait $!; then
        elapsed=$((${EPOCHREALTIME/./} - ${begin/./}))
        printf 'ok %s (%d.%d s)\n' "$name" $((elapsed / 1000000)) $((elapsed / 100000 % 10))
        return 0
    fi
    {
        echo "FAIL $name"
        find "$work" -name '*.log' | sort | while read -r log; do
            echo "--- ${log#"$work/"}"
            tr '\r' '\n' <"$log" | grep -a . | uniq | tail --lines 50 | cut -c 1-400 || true
        done
    } >"$work/report"
    cat "$work/report"
    return 1
}

# collect_case: waits for any running case and counts its result.
collect_case() {
    if wait -n; then
        cases_passed=$((cases_passed + 1))
    else
        cases_failed=$((cases_failed + 1))
    fi
    cases_running=$((cases_running - 1))
}

# finish_cases: waits for the remaining cases and prints the totals. Fails if a case failed or if no case ran.
finish_cases() {
    while ((cases_running > 0)); do
        collect_case
    done
    echo "$cases_passed of $((cases_passed + cases_failed)) cases passed"
    ((cases_passed > 0 && cases_failed == 0))
}
