# Completion of casemate's command line for bash 4.4 and newer: casemate completion bash

_casemate() {
    local line=${COMP_LINE:0:COMP_POINT} word i
    local -a words=() reply=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # What stands right behind the word before was cut off from it at a colon or an equals sign.
        if ((i > 0)) && [[ $line != [[:space:]]* ]]; then
            ((i == COMP_CWORD)) && word=$line
            words[-1]+=$word
        else
            # Up to the cursor only.
            ((i == COMP_CWORD)) && word=${line#"${line%%[![:space:]]*}"}
            words+=("$word")
        fi
        line=${line#*"$word"}
    done
    local current=${words[-1]}
    mapfile -t reply < <("${words[0]/#\~/$HOME}" __complete -- "${words[@]:1}" 2>/dev/null)
    # bash replaces what is behind the last break only.
    local tail=$current
    [[ $COMP_WORDBREAKS == *=* ]] && tail=${tail##*=}
    [[ $COMP_WORDBREAKS == *:* ]] && tail=${tail##*:}
    local head=${current%"$tail"}
    COMPREPLY=()
    for word in "${reply[@]:1}"; do
        word=${word%%$'\t'*}
        [[ $word == "$current"* ]] && COMPREPLY+=("${word#"$head"}")
    done
    local action=
    case ${reply[0]-} in
    :files) action=file ;;
    :commands) action=command ;;
    esac
    if [[ -n $action ]]; then
        [[ $action == command && $tail != */* ]] || compopt -o filenames 2>/dev/null
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -A "$action" -- "$tail")
    fi
}

complete -F _casemate casemate
