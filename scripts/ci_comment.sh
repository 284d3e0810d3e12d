#!/usr/bin/env bash
# Posts a gate's Markdown as a comment on a pull request. Later gates replace the comment.
#
# usage: scripts/ci_comment.sh OWNER/REPOSITORY NUMBER FILE
#
# Needs `gh` and GH_TOKEN with the right to write to pull requests.
set -euo pipefail
repository=${1:?usage: ci_comment.sh OWNER/REPOSITORY NUMBER FILE}
number=${2:?usage: ci_comment.sh OWNER/REPOSITORY NUMBER FILE}
file=${3:?usage: ci_comment.sh OWNER/REPOSITORY NUMBER FILE}
case $number in
  '' | *[!0-9]*)
    echo "error: '$number' is not the number of a pull request" >&2
    exit 2
    ;;
esac

marker='<!-- actbench gate -->'
body=$(mktemp)
trap 'rm -f "$body"' EXIT
# GitHub accepts 65,536 characters; the artifact of the job has the whole report.
{
  echo "$marker"
  head -c 60000 "$file"
  if [ "$(wc -c <"$file")" -gt 60000 ]; then
    printf '\n\n</details>\n\nThe rest is in the artifact of this job.\n'
  fi
} >"$body"

comment=$(gh api --paginate "repos/$repository/issues/$number/comments" \
  --jq ".[] | select(.body | startswith(\"$marker\")) | .id" | head -n 1)
if [ -n "$comment" ]; then
  gh api --method PATCH "repos/$repository/issues/comments/$comment" -F "body=@$body" >/dev/null
else
  gh api --method POST "repos/$repository/issues/$number/comments" -F "body=@$body" >/dev/null
fi
