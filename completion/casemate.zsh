#compdef casemate
# Completion of casemate's command line for zsh: casemate completion zsh

_casemate() {
    local -a reply described
    local line word
    reply=("${(@f)$(${(Q)words[1]/#\~/$HOME} __complete -- "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    for line in "${(@)reply[2,-1]}"; do
        word=${line%%$'\t'*}
        described+=("${word//:/\\:}:${line#*$'\t'}")
    done
    (( $#described )) && _describe -V casemate described
    # The path behind --option= is completed for itself.
    [[ $PREFIX == -*=* ]] && compset -P 1 '*='
    case $reply[1] in
    :files) _files ;;
    :commands) _command_names -e ;;
    esac
}

if [[ $funcstack[1] == _casemate ]]; then
    _casemate "$@"
else
    compdef _casemate casemate
fi
