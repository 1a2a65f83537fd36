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
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "create" -d 'Create a torrent for each file or directory'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "show" -d 'Print the content of each torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "magnet" -d 'Print each torrent as a magnet link'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "verify" -d 'Compare a file or directory with its torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "edit" -d 'Change the trackers, web seeds, DHT nodes, comment or creation date, but not the info-hashes'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "lint" -d 'Check torrents before they are published'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s a -l announce -d 'Announce URLs of trackers; give the option again for trackers that are used only if none of these responds (BEP 12)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s w -l web-seed -d 'URL of a mirror that has the files: of the directory, with a slash at the end, or of PATH (BEP 19)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l node -d 'DHT node with which clients start (BEP 5)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l format -d 'Version of the torrent' -r -f -a "v1\t'For all clients (BEP 3)'
v2\t'For new clients only (BEP 52)'
hybrid\t'Both versions, so that old and new clients share with each other'"
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s l -l piece-length -d 'Bytes in each piece, such as 262144, 256K or 1M; by default, a length that suits the size' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s x -l exclude -d 'Leave out files and directories with this name, or with this path below PATH' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l name -d 'Name of the torrent, instead of the name of PATH' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s c -l comment -d 'Comment for people' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l source -d 'Source of the torrent; the same files with another source are another torrent' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l similar -d 'Version 1 info-hash of a torrent that has files in common with this torrent (BEP 38)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -l collection -d 'Name shared by torrents that have files in common (BEP 38)' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s o -l output -d 'Write the torrent to PATH: a file, a directory, or - for standard output' -r -F
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s t -l threads -d 'Number of threads that read and hash; by default, one for each processor' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s p -l private -d 'Mark the torrent as private: clients get peers only from its trackers (BEP 27)'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s f -l force -d 'Overwrite an existing torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s q -l quiet -d 'Print only errors'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand show" -l json -d 'Print one line of JSON for each torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand show" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand magnet" -l bare -d 'Print only the info-hashes, without the name, the trackers and the web seeds'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand magnet" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand verify" -s t -l threads -d 'Number of threads that read and hash; by default, one for each processor' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand verify" -s q -l quiet -d 'Print only errors'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand verify" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s a -l announce -d 'Replace all trackers; written as for create' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s w -l web-seed -d 'Replace all web seeds; written as for create' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l node -d 'Replace all DHT nodes' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s c -l comment -d 'Replace the comment; an empty text removes it' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s o -l output -d 'Write to PATH, and do not change the torrent itself: a file, a directory, or - for standard output' -r -F
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-announce -d 'Remove all trackers'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-web-seeds -d 'Remove all web seeds, those of BEP 17 as well'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-nodes -d 'Remove all DHT nodes'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -l no-creation-date -d 'Remove the creation date'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand edit" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s a -l announce -d 'The trackers that each torrent must have; it must have no others' -r
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s d -l data -d 'Directory of the files, if they are not next to their torrents' -r -F
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -l online -d 'Send a HEAD request to each web seed for each file, and compare the length'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s q -l quiet -d 'Print only errors'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand lint" -s h -l help -d 'Print help'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "create" -d 'Create a torrent for each file or directory'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "show" -d 'Print the content of each torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "magnet" -d 'Print each torrent as a magnet link'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "verify" -d 'Compare a file or directory with its torrent'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "edit" -d 'Change the trackers, web seeds, DHT nodes, comment or creation date, but not the info-hashes'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "lint" -d 'Check torrents before they are published'
complete -c tbtt-torrent -n "__fish_tbtt_torrent_using_subcommand help; and not __fish_seen_subcommand_from create show magnet verify edit lint help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
