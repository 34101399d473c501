# Completion of casemate's command line for fish: casemate completion fish

function __casemate_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l reply ($program __complete -- $words "$current" 2>/dev/null)
    set -l kind $reply[1]
    set -e reply[1]
    # Each line is a word, a tab and what it means, as fish wants it.
    for line in $reply
        echo -- $line
    end
    switch "$kind"
        case :files
            __fish_complete_path "$current"
        case :commands
            complete -C "$current"
    end
end

complete -c casemate -f -a '(__casemate_complete)'
