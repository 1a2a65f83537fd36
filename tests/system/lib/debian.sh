# shellcheck shell=bash
# Systems of Debian to run things in.

# make_debian SUITE DIRECTORY OPTION...: makes one with mmdebstrap, from the mirror that this system uses and with its
# patience with it, as small as the options have it.
make_debian() {
    local mirror valid options=()
    if command -v apt-get >/dev/null; then
        # shellcheck disable=SC2016 # a variable of apt's
        mirror=$(apt-get indextargets --format '$(REPO_URI)' \
            'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head --lines 1)
        valid=$(apt-config dump --format '%f "%v";%n' Acquire::Check-Valid-Until)
        [[ -z $valid ]] || options+=("--aptopt=$valid")
    fi
    # Who built what is to be known from the copyrights: dh-cargo reads them.
    mmdebstrap --quiet --mode=root "${options[@]}" "${@:3}" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='force-unsafe-io' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/i18n/*' \
        "$1" "$2" "${mirror-}" >&2
}
