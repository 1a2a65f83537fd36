# shellcheck shell=bash
# Cases run beside each other, each in its own directory, and are counted.

cases_running=0 cases_passed=0 cases_failed=0

# run_case NAME COMMAND...: runs a case in the background, with $net as the name of its network and
# $work as its directory, unless its name lacks $pattern. A failed one shows all that it wrote.
run_case() {
    [[ $1 == *"${pattern-}"* ]] || return 0
    # Most of a case is waiting, so there may be more than processors.
    ((cases_running < 8)) || count_case
    cases_running=$((cases_running + 1))
    judge_case "$@" &
}

judge_case() {
    local name=$1 net work begin=$EPOCHREALTIME took log
    shift
    net=$(tr -cs '[:alnum:]\n' - <<<"$name")
    work=/run/$net
    mkdir "$work"
    "$@" >"$work/case.log" 2>&1 &
    if wait $!; then
        took=$((${EPOCHREALTIME/./} - ${begin/./}))
        printf 'ok %s (%d.%d s)\n' "$name" $((took / 1000000)) $((took / 100000 % 10))
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

count_case() {
    if wait -n; then
        cases_passed=$((cases_passed + 1))
    else
        cases_failed=$((cases_failed + 1))
    fi
    cases_running=$((cases_running - 1))
}

# close_cases: waits for the rest and gives the count; fails if a case did, or if there was none.
close_cases() {
    while ((cases_running > 0)); do
        count_case
    done
    echo "$cases_passed of $((cases_passed + cases_failed)) cases passed"
    ((cases_passed > 0 && cases_failed == 0))
}
