# shellcheck shell=bash
# Creates Debian systems to run tests in.

# make_debian SUITE DIRECTORY OPTION...: creates a system with mmdebstrap, from the mirror of this system and with this
# system's setting for expired package lists. The options are mmdebstrap's.
make_debian() {
    local mirror valid options=()
    if command -v apt-get >/dev/null; then
        # shellcheck disable=SC2016 # the variable is apt's
        mirror=$(apt-get indextargets --format '$(REPO_URI)' \
            'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head --lines 1)
        valid=$(apt-config dump --format '%f "%v";%n' Acquire::Check-Valid-Until)
        [[ -z $valid ]] || options+=("--aptopt=$valid")
    fi
    # dh-cargo reads the copyright files to find out which sources the binaries are built from.
    mmdebstrap --quiet --mode=root "${options[@]}" "${@:3}" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='force-unsafe-io' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/i18n/*' \
        "$1" "$2" "${mirror-}" >&2
}
