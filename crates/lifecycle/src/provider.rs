//! Which provider a model slug implies (2.R93).

/// Slug prefix → provider. Some providers are reached through another one on purpose.
const PROVIDERS: [(&str, &str); 45] = [
    ("minimax", "minimax"),
    ("minimax-cn", "minimax-cn"),
    ("anthropic", "anthropic"),
    ("gemini", "gemini"),
    ("deepseek", "deepseek"),
    ("zai", "zai"),
    ("kimi-coding", "kimi-coding"),
    ("kimi-coding-cn", "kimi-coding-cn"),
    ("alibaba", "alibaba"),
    ("dashscope", "alibaba"),
    ("qwen", "alibaba"),
    ("xiaomi", "xiaomi"),
    ("mimo", "xiaomi"),
    ("arcee", "arcee"),
    ("arcee-ai", "arcee"),
    ("nvidia", "nvidia"),
    ("nim", "nvidia"),
    ("ollama-cloud", "ollama-cloud"),
    ("huggingface", "huggingface"),
    ("hf", "huggingface"),
    ("ai-gateway", "ai-gateway"),
    ("aigateway", "ai-gateway"),
    ("kilocode", "kilocode"),
    ("opencode-zen", "opencode-zen"),
    ("opencode-go", "opencode-go"),
    ("openrouter", "openrouter"),
    ("custom", "custom"),
    ("nousresearch", "openrouter"),
    ("openai", "openrouter"),
    ("xai", "xai"),
    ("grok", "xai"),
    ("bedrock", "bedrock"),
    ("aws", "bedrock"),
    ("tencent", "tencent-tokenhub"),
    ("tencent-tokenhub", "tencent-tokenhub"),
    ("gmi", "gmi"),
    ("qwen-oauth", "qwen-oauth"),
    ("lmstudio", "lmstudio"),
    ("lm-studio", "lmstudio"),
    ("minimax-oauth", "minimax-oauth"),
    ("alibaba-coding-plan", "alibaba-coding-plan"),
    ("google-gemini-cli", "google-gemini-cli"),
    ("openai-codex", "openai-codex"),
    ("copilot-acp", "copilot-acp"),
    ("copilot", "copilot"),
];

/// The provider of a model slug; `None` when the slug names none that is known. Never a guess: a stored guess
/// would stick.
#[must_use]
pub fn derive(model: &str) -> Option<&'static str> {
    let prefix = model.split_once('/')?.0.to_ascii_lowercase();
    PROVIDERS.iter().find(|(known, _)| *known == prefix).map(|(_, provider)| *provider)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_is_the_contracts() {
        // 2.R93: every prefix of the two columns, read from the contract.
        let contract = include_str!("../../../docs/contract/02-provisioning.md");
        let table = contract.split("- **2.R93**").nth(1).unwrap().split("- **2.R9").next().unwrap();
        let table = table.split("### 6.5").next().unwrap();
        let mut expected = BTreeMap::new();
        for row in table.lines().map(str::trim).filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            for pair in [cells.get(..2), cells.get(3..5)].into_iter().flatten() {
                for prefix in pair[0].split(',').map(|p| p.trim().trim_matches('`')) {
                    if !prefix.is_empty() {
                        expected.insert(prefix.to_owned(), pair[1].trim_matches('`').to_owned());
                    }
                }
            }
        }
        let actual: BTreeMap<_, _> = PROVIDERS
            .iter()
            .map(|(prefix, provider)| ((*prefix).to_owned(), (*provider).to_owned()))
            .collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn unknown_prefixes_name_no_provider() {
        // 2.R93
        assert_eq!(derive("MiniMax/m2"), Some("minimax"));
        assert_eq!(derive("openai/gpt-5"), Some("openrouter"));
        for model in ["gpt-5", "/gpt-5", "unheard-of/x", ""] {
            assert_eq!(derive(model), None, "{model}");
        }
    }
}
