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

complete -c tbttctl -n "__fish_tbttctl_needs_command" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_needs_command" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -s V -l version -d 'Print version'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "status" -d 'Tell how the tracker does: peers, announces, refusals, releases without a seed'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "torrents" -d 'List the releases'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "torrent" -d 'Tell all about one release'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "reload" -d 'Have the configuration, its lists and the torrent directories read again, and tell what came of it'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "snapshot" -d 'Have the state saved now, and wait until it is'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "check" -d 'Check for a monitoring system: exits with 0 if all is well, 1 for a warning, 2 if it is critical, 3 if unknown'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "top" -d 'Show the tracker\'s figures and its busiest releases, living, until q or Ctrl-C'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "log-level" -d 'Tell the least important level that is logged, or set it until the next reload or restart'
complete -c tbttctl -n "__fish_tbttctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand status" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand status" -l json -d 'Print all figures as JSON'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -l sort -d 'What comes first: names from A on, of the others the most or the latest' -r -f -a "name\t''
size\t''
seeders\t''
leechers\t''
downloads\t''
listed\t'When it was published'
last-seed\t'When a seed was last seen'"
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -l unseeded -d 'Only those that have no seed now'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -s r -l reverse -d 'The other way round'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -l json -d 'Print them as JSON'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrents" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrent" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrent" -l json -d 'Print it as JSON'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand torrent" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand reload" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand snapshot" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand snapshot" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l never-seeded -d 'How many releases may have been published without a seed, for longer than they may be' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l lost-seeds -d 'How many releases may have lost their seeds, for longer than they may be without' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l snapshot-age -d 'How many seconds old the last snapshot may be [default: three times and twelve times what [state] interval says]' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -l refusals -d 'How many percent of the last seconds\' requests may be refused, once it is more than one a second' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand check" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -s i -l interval -d 'Seconds between two looks' -r
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -l sort -d 'What comes first' -r -f -a "name\t''
size\t''
seeders\t''
leechers\t''
downloads\t''
listed\t'When it was published'
last-seed\t'When a seed was last seen'"
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand log-level" -s s -l socket -d 'The daemon\'s control socket, as [control] listen in its configuration has it' -r -F
complete -c tbttctl -n "__fish_tbttctl_using_subcommand log-level" -s h -l help -d 'Print help'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "status" -d 'Tell how the tracker does: peers, announces, refusals, releases without a seed'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "torrents" -d 'List the releases'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "torrent" -d 'Tell all about one release'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "reload" -d 'Have the configuration, its lists and the torrent directories read again, and tell what came of it'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "snapshot" -d 'Have the state saved now, and wait until it is'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "check" -d 'Check for a monitoring system: exits with 0 if all is well, 1 for a warning, 2 if it is critical, 3 if unknown'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "top" -d 'Show the tracker\'s figures and its busiest releases, living, until q or Ctrl-C'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "log-level" -d 'Tell the least important level that is logged, or set it until the next reload or restart'
complete -c tbttctl -n "__fish_tbttctl_using_subcommand help; and not __fish_seen_subcommand_from status torrents torrent reload snapshot check top log-level help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
