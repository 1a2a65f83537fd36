# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tbttctl_global_optspecs
    string join \n s/socket= h/help V/version
end

function __fish_tbttctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tbttctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tbttctl_using_subcommand
    set -l cmd (__fish_tbttctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tbttctl -n "__fish_tbttctl_needs_command" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_needs_command" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -s V -l version -d 'Print version'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "status" -d 'Show the state of the tracker: peers, announces, refusals, releases without a seeder'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "torrents" -d 'List the releases'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "torrent" -d 'Show everything about a release'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "reload" -d 'Reload the configuration, its lists and the torrent directories'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "snapshot" -d 'Save the state now, and wait until it is on the disk'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "check" -d 'Check the tracker for a monitoring system. Exit status: 0 OK, 1 warning, 2 critical, 3 unknown'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "top" -d 'Show the state of the tracker and its busiest releases, continuously updated. Press q to quit'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "log-level" -d 'Print the least important level that is logged, or set it until the next reload or restart'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand status" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand status" -l json -d 'Print everything as JSON'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -l sort -d 'Order of the releases: names from A to Z, anything else from the largest or latest' -r -f -a "name\t''
size\t''
seeders\t''
leechers\t''
downloads\t''
listed\t'When the release was listed'
last-seed\t'When a seeder was last seen'"
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -l unseeded -d 'List only releases that have no seeder now'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -s r -l reverse -d 'Reverse the order'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -l json -d 'Print the releases as JSON'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrent" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrent" -l json -d 'Print the release as JSON'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrent" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand reload" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand snapshot" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand snapshot" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l never-seeded -d 'Limits for the number of releases that never had a seeder' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l lost-seeds -d 'Limits for the number of releases that lost their last seeder' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l snapshot-age -d 'Limits for the age of the last snapshot in seconds [default: 3 times and 12 times [state] interval]' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l refusals -d 'Limits for the percentage of requests refused in the last 10 seconds. Up to 1 refusal a second is ignored' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -s i -l interval -d 'Seconds between updates' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -l sort -d 'Order of the releases' -r -f -a "name\t''
size\t''
seeders\t''
leechers\t''
downloads\t''
listed\t'When the release was listed'
last-seed\t'When a seeder was last seen'"
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand log-level" -s s -l socket -d 'Path of the control socket; see [control] listen in tbtt.toml' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand log-level" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "status" -d 'Show the state of the tracker: peers, announces, refusals, releases without a seeder'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "torrents" -d 'List the releases'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "torrent" -d 'Show everything about a release'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "reload" -d 'Reload the configuration, its lists and the torrent directories'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "snapshot" -d 'Save the state now, and wait until it is on the disk'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "check" -d 'Check the tracker for a monitoring system. Exit status: 0 OK, 1 warning, 2 critical, 3 unknown'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "top" -d 'Show the state of the tracker and its busiest releases, continuously updated. Press q to quit'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "log-level" -d 'Print the least important level that is logged, or set it until the next reload or restart'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
