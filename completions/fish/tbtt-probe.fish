complete -c tbtt-probe -l info-hash -d 'Announce this torrent, given as 40 hexadecimal digits, instead of a random one; with a second hash, the order in the response to a scrape is tested too' -r
complete -c tbtt-probe -l torrent -d 'Announce the torrent of this .torrent file' -r -F
complete -c tbtt-probe -l timeout -d 'Wait this long for a response, from 1 to 60 seconds' -r
complete -c tbtt-probe -l gentle -d 'Send five to ten requests, as one or two clients do'
complete -c tbtt-probe -l full -d 'Send about 80 requests over UDP, or 160 over HTTP, some of them malformed'
complete -c tbtt-probe -l hostile -d 'Send garbage, oversized, incomplete and forged requests as well; only to an address of this machine'
complete -c tbtt-probe -l with-permission -d 'With --hostile, allow an address of another machine; requires the permission of the operators of the tracker and of the network'
complete -c tbtt-probe -l wait -d 'Also test how long a UDP connection ID is valid, which takes more than two minutes'
complete -c tbtt-probe -s 4 -d 'Test only over IPv4'
complete -c tbtt-probe -s 6 -d 'Test only over IPv6'
complete -c tbtt-probe -l json -d 'Print the report as one JSON object'
complete -c tbtt-probe -l tap -d 'Print the report in the Test Anything Protocol, version 14; a difference is a failed test marked TODO'
complete -c tbtt-probe -s v -l verbose -d 'Print what was seen in successful cases too'
complete -c tbtt-probe -l txt -d 'Send nothing, print the TXT records for these URLs (BEP 34), and exit'
complete -c tbtt-probe -l list -d 'List all cases with their sources, and exit'
complete -c tbtt-probe -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tbtt-probe -s V -l version -d 'Print version'
