complete -c tbtt -s c -l config -d 'Read the configuration from FILE, and the drop-ins from the directory FILE.d' -r -F
complete -c tbtt -l open -d 'Track any torrent that is not denied, as if [torrents] open were true'
complete -c tbtt -l check-config -d 'Check the configuration, print its errors and warnings, and exit'
complete -c tbtt -l print-default-config -d 'Print every key with its default and meaning, and exit'
complete -c tbtt -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt -s V -l version -d 'Print version'
