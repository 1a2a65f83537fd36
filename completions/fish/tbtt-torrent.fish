# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tbtt_torrent_global_optspecs
    string join \n h/help V/version
end

function __fish_tbtt_torrent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tbtt_torrent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tbtt_torrent_using_subcommand
    set -l cmd (__fish_tbtt_torrent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -s V -l version -d 'Print version'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "create" -d 'Make a torrent of each file or directory'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "show" -d 'Tell what torrents hold'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "magnet" -d 'Print torrents as magnet links'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "verify" -d 'Compare a file or directory with its torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "edit" -d 'Change what stands around the files; the info-hashes stay'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "lint" -d 'Check torrents as they are to be published'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s a -l announce -d 'Trackers that stand for each other; given again, the next choice (BEP 12)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s w -l web-seed -d 'A mirror: the URL of the directory, ending in /, or of the file itself (BEP 19)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l node -d 'A DHT node to begin with (BEP 5)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l format -d 'The version: both, or one of them' -r -f -a "v1\t'For every client (BEP 3)'
v2\t'For new clients only (BEP 52)'
hybrid\t''"
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s l -l piece-length -d 'Bytes of a piece, as 262144, 256K or 1M, instead of a length that suits the size' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s x -l exclude -d 'Leave out what has this name, or this path below PATH' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l name -d 'Another name than the file\'s or directory\'s own' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s c -l comment -d 'A remark for people' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l source -d 'Where it comes from; makes another torrent of the same files' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l similar -d 'The v1 info-hash of a torrent that shares files with it (BEP 38)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l collection -d 'A name that torrents with common files have in common (BEP 38)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s o -l output -d 'Write here instead: a file, a directory, or - for standard output' -r -F
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s t -l threads -d 'Threads that read and hash, instead of one for each processor' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s p -l private -d 'No peers but those of the trackers (BEP 27)'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s f -l force -d 'Write over a torrent that is there'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s q -l quiet -d 'Print nothing but faults'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand show" -l json -d 'One line of JSON for each'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand show" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand magnet" -l bare -d 'The info-hashes alone, without name, trackers and web seeds'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand magnet" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand verify" -s t -l threads -d 'Threads that read and hash, instead of one for each processor' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand verify" -s q -l quiet -d 'Print nothing but faults'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand verify" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s a -l announce -d 'These trackers instead; as for create' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s w -l web-seed -d 'These web seeds instead; as for create' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l node -d 'These DHT nodes instead' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s c -l comment -d 'Another comment; none, if it is empty' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s o -l output -d 'Write here, instead of over the torrent: a file, a directory, or - for standard output' -r -F
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-announce -d 'No trackers'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-web-seeds -d 'No web seeds, those of BEP 17 with them'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-nodes -d 'No DHT nodes'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-creation-date -d 'No creation date'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s a -l announce -d 'A tracker of ours: each torrent must have all of these, and no other' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s d -l data -d 'Where the files lie, instead of beside their torrents' -r -F
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -l online -d 'Ask each web seed whether it has the file, whole and without a redirect'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s q -l quiet -d 'Print nothing but faults'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "create" -d 'Make a torrent of each file or directory'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "show" -d 'Tell what torrents hold'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "magnet" -d 'Print torrents as magnet links'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "verify" -d 'Compare a file or directory with its torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "edit" -d 'Change what stands around the files; the info-hashes stay'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "lint" -d 'Check torrents as they are to be published'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
