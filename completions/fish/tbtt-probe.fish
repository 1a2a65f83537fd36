complete -c tbtt-probe -l info-hash -d 'A torrent that the tracker tracks, in 40 hex digits; a second one lets more be tested. Without any, a random one is announced' -r
complete -c tbtt-probe -l torrent -d 'The same from a .torrent file' -r -F
complete -c tbtt-probe -l timeout -d 'How long an answer may take, from 1 to 60 seconds' -r
complete -c tbtt-probe -l gentle -d 'A handful of requests, as one client sends them; what another machine\'s tracker gets by default'
complete -c tbtt-probe -l full -d 'All that is not hostile, some 80 to 160 requests; what a tracker of this machine gets by default'
complete -c tbtt-probe -l hostile -d 'Garbage, oversize, slow and forged requests as well; only at an address of this machine'
complete -c tbtt-probe -l with-permission -d 'With --hostile: whoever runs the tracker has allowed this, so do it at an address of another machine too'
complete -c tbtt-probe -l wait -d 'Also wait out the life of a UDP connection id, which takes over two minutes'
complete -c tbtt-probe -s 4 -d 'Only over IPv4'
complete -c tbtt-probe -s 6 -d 'Only over IPv6'
complete -c tbtt-probe -l json -d 'Write the report as JSON'
complete -c tbtt-probe -l tap -d 'Write the report for the Test Anything Protocol; what differs from practice is a TODO there'
complete -c tbtt-probe -s v -l verbose -d 'Tell what was seen in cases that are well, too'
complete -c tbtt-probe -l txt -d 'Ask nothing: print the TXT records (BEP 34) for these URLs, and exit'
complete -c tbtt-probe -l list -d 'Name every case, and exit'
complete -c tbtt-probe -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt-probe -s V -l version -d 'Print version'
