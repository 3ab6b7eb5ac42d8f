# A coding agent at its work, its model played by a script on loopback. Arguments: which agent, the folder where it is,
# the model's stand-in, and what the model says.
set -e
agent=$1 folder=$2
mkfifo port end
python3 "$3" "$4" <end >port &
exec 3>end # closed, it ends the model's stand-in
read -r port <port
case $agent in
opencode)
    cat >opencode.json <<EOF
{"autoupdate": false, "share": "disabled", "permission": {"bash": "allow"}, "model": "scripted/scripted", "small_model": "scripted/scripted",
 "provider": {"scripted": {"npm": "@ai-sdk/openai-compatible", "name": "a script", "models": {"scripted": {"name": "scripted"}},
                           "options": {"baseURL": "http://127.0.0.1:$port/v1", "apiKey": "none"}}}}
EOF
    OPENCODE_CONFIG="$PWD/opencode.json" OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 \
        "$folder" run "Look after the notes on AWS." >said 2>&1 </dev/null || { cat said; exit 1; }
    ;;
mini-swe-agent)
    LITELLM_LOCAL_MODEL_COST_MAP=True OPENAI_API_BASE="http://127.0.0.1:$port/v1" OPENAI_API_KEY=none MSWEA_CONFIGURED=true MSWEA_COST_TRACKING=ignore_errors \
        MSWEA_GLOBAL_CONFIG_DIR="$PWD" \
        "$folder/bin/mini" -m openai/scripted -t "Look after the notes on AWS." -y --exit-immediately >said 2>&1 </dev/null ||
        { cat said; exit 1; }
    ;;
esac
exec 3>&-
wait
# What it was told by its tool; what it prints itself has times in it.
cat heard || { cat said; exit 1; }
