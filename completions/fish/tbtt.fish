complete -c tbtt -s c -l config -d 'Read this configuration instead, and the drop-ins in FILE.d' -r -F
complete -c tbtt -l open -d 'Track any torrent, whoever made it, as if [torrents] open were true'
complete -c tbtt -l check-config -d 'Tell what is wrong with the configuration, or that nothing is, and exit'
complete -c tbtt -l print-default-config -d 'Print every key with its default and meaning, and exit'
complete -c tbtt -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt -s V -l version -d 'Print version'
